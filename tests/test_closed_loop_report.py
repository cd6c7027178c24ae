"""The report page, opened in a real browser where there is one."""

import re
from pathlib import Path

import numpy as np
import pytest
from browser import browse, needs_browser

from benchmarks.closed_loop_episodes import EpisodeJob, EpisodeResult, World
from benchmarks.closed_loop_figures import CURVES, curve_of, figures_of, report_of
from benchmarks.closed_loop_page import film_of, worst_episodes, worst_step, write_page
from drivesim.metrics.base import MetricResult
from drivesim.metrics.scores import EpisodeScores
from drivesim.video import read_image, read_video, write_video

HORIZON = 6
CHECK_FILMS = """
<p id="films"></p><script>
const films = [...document.querySelectorAll("video")];
Promise.all(films.map(film => new Promise(resolve => {
  film.onloadeddata = () => resolve(film.videoWidth + "x" + film.videoHeight);
  film.onerror = () => resolve("broken");
  film.load();
}))).then(sizes => { document.getElementById("films").textContent = "films: " + sizes.join(" "); });
</script></body>"""


def result_of(
    policy, scene, *, num_steps=HORIZON, end_reason="time_limit", pdms=0.5, video=b""
) -> EpisodeResult:
    steps = np.arange(num_steps)
    return EpisodeResult(
        job=EpisodeJob(policy=policy, scene=scene),
        world=World.REFERENCE,
        scores=EpisodeScores(
            pdms=MetricResult(value=pdms),
            hd_score=MetricResult(value=pdms / 2),
            comfort=MetricResult(value=1.0),
            pdms_parts="DAC EP C",
        ),
        end_reason=end_reason,
        arrays={
            "reward": 1.0 - 0.1 * steps,
            "ego/speed_mps": 5.0 + steps,
            "metrics/lateral_error_m": -0.1 * steps,
        },
        video=video,
    )


def failed(policy, scene) -> EpisodeResult:
    return EpisodeResult(
        job=EpisodeJob(policy=policy, scene=scene),
        world=World.REFERENCE,
        scores=EpisodeScores(),
        end_reason="failed",
        failure="select_action raised <b>KeyError</b>",
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[EpisodeResult]:
    folder = tmp_path_factory.mktemp("films")

    def film(num_steps, shade):
        frames = [np.full((128, 224, 3), shade + 8 * index, np.uint8) for index in range(num_steps + 1)]
        write_video(folder / "film.mp4", frames, 6.0)
        return (folder / "film.mp4").read_bytes()

    return [
        result_of("good", "road-1", pdms=0.9, video=film(HORIZON, 40)),
        result_of("good", "road-2", pdms=0.7, video=film(HORIZON, 80)),
        result_of("bad", "road-1", pdms=0.0, num_steps=3, end_reason="off_road", video=film(3, 120)),
        result_of("bad", "road-2", pdms=0.4, video=film(HORIZON, 160)),
        failed("worse", "road-1"),
    ]


@pytest.fixture(scope="module")
def page(results, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(
        path,
        results,
        figures_of(results),
        title="drivesim: closed loop",
        horizon=HORIZON,
        off_road_limit=0.5,
        facts={"Configuration": {"steps": HORIZON}, "Versions": {"torch": "2"}},
    )
    return path


def test_figures_are_means_of_what_was_measured(results):
    figures = figures_of(results)
    assert [one.policy for one in figures] == ["good", "bad", "worse"]
    good, bad, worse = figures
    assert good.estimates["pdms"].value == pytest.approx(0.8)
    assert (good.estimates["pdms"].low, good.estimates["pdms"].high) == pytest.approx((0.7, 0.9))
    assert "collision" not in good.estimates
    assert bad.end_words() == "off_road 1, time_limit 1"
    assert (worse.num_failed, worse.estimates) == (1, {})
    report = report_of(results, figures, {"machine": "x"}).as_dict()
    assert report["pdms"] == pytest.approx({"good": 0.8, "bad": 0.2})
    assert report["policies"] == ["good", "bad", "worse"]
    assert report["failures"] == {results[4].job.id: "select_action raised <b>KeyError</b>"}
    assert report["parts"] == "DAC EP C in 4 episodes"


def test_curves_end_where_episodes_do(results):
    intact, speed, lateral, _, confidence = [curve_of(results[2:4], curve, HORIZON) for curve in CURVES]
    assert intact == pytest.approx([1, 1, 0.5, 0.5, 0.5, 0.5])
    assert speed == pytest.approx([5, 6, 7, 8, 9, 10])
    assert lateral == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert np.isnan(confidence).all()
    short = curve_of(results[2:3], CURVES[1], HORIZON)
    assert np.isnan(short[3:]).all()
    assert np.isnan(curve_of(results[4:], CURVES[0], HORIZON)).all()


def test_the_worst_come_first_and_show_their_worst_moment(results):
    worst = worst_episodes(results * 3)
    assert [result.scores.pdms.value for result in worst] == [0.0, 0.0, 0.7, 0.7]  # two of each policy
    assert worst_step(results[2]) == 2  # where it left the road
    assert worst_step(results[0]) == HORIZON - 1  # the lowest reward


def test_films_of_scenes_stand_still_at_their_end(results, tmp_path):
    (tmp_path / "film.mp4").write_bytes(film_of(results[2:4]))
    frames = read_video(tmp_path / "film.mp4").frames
    assert frames.shape == (HORIZON + 1 + 4, 128, 450, 3)
    left, right = frames[:, 64:, 10:200].mean(axis=(1, 2, 3)), frames[:, 64:, 240:440].mean(axis=(1, 2, 3))
    assert left[-1] == pytest.approx(left[3], abs=3)
    assert right[6] > right[3] + 10


def test_the_page_is_one_file_that_escapes_what_it_is_told(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<b>KeyError" not in text
    assert "&lt;b&gt;KeyError" in text
    assert text.count("<video") == 2
    assert "These are not NAVSIM" in text
    for heading in (
        "Scores",
        "Failed episodes",
        "Plots",
        "Films",
        "Worst moments",
        "Configuration",
        "Versions",
    ):
        assert f"<h2>{heading}</h2>" in text


@needs_browser
def test_a_browser_shows_the_page(page, tmp_path):
    browse(page, tmp_path / "profile", f"--screenshot={tmp_path / 'page.png'}", "--window-size=1200,3000")
    picture = read_image(tmp_path / "page.png")
    assert picture.shape == (3000, 1200, 3)
    assert picture.std() > 20
    assert (picture < 250).any(axis=(1, 2)).mean() > 0.5  # it is full of things


@needs_browser
def test_a_browser_decodes_the_films(page, tmp_path):
    checked = tmp_path / "checked.html"
    checked.write_text(page.read_text().replace("</body>", CHECK_FILMS))
    done = browse(checked, tmp_path / "profile", "--dump-dom", "--virtual-time-budget=10000")
    assert re.search(r"films: 450x128 450x128<", done.stdout), re.findall(r"films:[^<]*", done.stdout)
