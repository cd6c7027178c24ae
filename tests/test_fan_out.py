"""Work over processes and a pretended Ray: order, deaths and errors."""

import os
import sys
from pathlib import Path

import fan_out_jobs
import numpy as np
import pytest
from pretended_ray import DEATHS, pretended_ray

from benchmarks.closed_loop_episodes import DIED, DriveSettings, EpisodeJob, World, run_episodes
from drivesim.errors import InputError
from drivesim.rollout import EpisodeConfig
from drivesim.training.fan_out import fan_out


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_in_the_order_of_the_jobs(processes):
    seen = []
    results = fan_out(
        fan_out_jobs.squared, range(5), processes=processes, on_result=lambda i, r: seen.append((i, r))
    )
    assert results == [0, 1, 4, 9, 16]
    assert sorted(seen) == list(enumerate(results))


def test_jobs_leave_this_process_and_share_the_others():
    workers = fan_out(fan_out_jobs.process_number, range(6), processes=2)
    assert os.getpid() not in workers
    assert len(set(workers)) == 2


def test_a_process_that_dies_costs_its_own_job():
    results = fan_out(fan_out_jobs.squared_or_dies, range(5), processes=1, on_death=lambda job: -job)
    assert results == [0, 1, -2, 9, 16]
    with pytest.raises(InputError, match="was killed"):
        fan_out(fan_out_jobs.squared_or_dies, range(3), processes=1)


@pytest.mark.parametrize("processes", [0, 1])
def test_what_a_job_raises_is_raised_here(processes):
    with pytest.raises(KeyError, match="no 1"):
        fan_out(fan_out_jobs.refuses, range(3), processes=processes)


def test_what_cannot_be_sent_is_an_error_not_a_hang():
    with pytest.raises(RuntimeError, match="cannot be sent between processes"):
        fan_out(fan_out_jobs.unsendable, [1], processes=1)


def test_no_jobs_no_work():
    assert fan_out(fan_out_jobs.squared, [], processes=2) == []
    with pytest.raises(InputError, match="--processes"):
        fan_out(fan_out_jobs.squared, [1], processes=-1)


@pytest.fixture
def ray(monkeypatch):
    module = pretended_ray()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def test_ray_shares_the_jobs_and_keeps_the_order(ray):
    seen = []
    results = fan_out(
        fan_out_jobs.squared, range(4), ray_address="auto", on_result=lambda i, r: seen.append(i)
    )
    assert results == [0, 1, 4, 9]
    assert seen == [3, 2, 1, 0]
    assert ray.options == {"max_retries": 0}


def test_jobs_are_made_when_somebody_is_free(ray):
    made, seen = [], []
    jobs = (made.append(number) or number for number in range(9))

    def take(index, _result):
        seen.append((index, len(made)))

    results = fan_out(
        fan_out_jobs.squared, jobs, ray_address="auto", ray_resources={"num_gpus": 1}, on_result=take
    )
    assert results == [number**2 for number in range(9)]
    assert seen[0] == (3, 4)  # two for each of two processors, of which the newest is done first
    assert seen[1] == (4, 5)
    assert ray.options == {"max_retries": 0, "num_gpus": 1}
    made.clear()
    assert fan_out(fan_out_jobs.squared, iter(range(3)), processes=1) == [0, 1, 4]


def test_ray_errors_and_deaths_are_those_of_the_job(ray):
    with pytest.raises(KeyError, match="no 1"):
        fan_out(fan_out_jobs.refuses, range(3), ray_address="auto")
    assert len(ray.cancelled) == 1
    for kind in DEATHS:
        assert fan_out(str, [kind, "lives"], ray_address="auto", on_death=lambda job: f"lost {job}") == [
            f"lost {kind}",
            "lives",
        ]
        with pytest.raises(InputError, match=rf"Ray worker .* died \({kind}\)"):
            fan_out(str, [kind], ray_address="auto")


def test_ray_that_is_missing_or_silent_is_named(ray, monkeypatch):
    with pytest.raises(InputError, match="no Ray cluster answers at 'elsewhere:1'"):
        fan_out(fan_out_jobs.squared, [1], ray_address="elsewhere:1")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'drivesim\[ray\]'"):
        fan_out(fan_out_jobs.squared, [1], ray_address="auto")


@pytest.fixture
def local_ray(monkeypatch):
    """Let the real Ray start on this machine, where its workers find the tests' modules, and end it afterwards."""
    ray = pytest.importorskip("ray")
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tests")]))
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_the_real_ray_drives_as_processes_do(local_ray):
    settings = DriveSettings(
        world=World.REFERENCE, episode=EpisodeConfig(horizon=4), has_videos=False, time_limit_s=5.0
    )
    names = ["pure-pursuit", "bad_policies:EndsItsProcess", "random@hold_s=0.3"]
    jobs = [EpisodeJob(policy=name, scene="scene-2001") for name in names]
    expected = run_episodes(jobs, settings, batch_size=2, processes=1)
    found = run_episodes(jobs, settings, batch_size=2, processes=1, ray_address="local")
    assert [result.failure for result in found] == ["", DIED, ""]
    for one, other in zip(expected, found, strict=True):
        assert (one.job, one.scores, one.end_reason) == (other.job, other.scores, other.end_reason)
        assert one.arrays.keys() == other.arrays.keys()
        assert all(np.array_equal(one.arrays[key], other.arrays[key]) for key in one.arrays)
    assert fan_out(
        fan_out_jobs.squared_or_dies, range(4), ray_address="local", on_death=lambda job: -job
    ) == [*[0, 1, -2, 9]]
    with pytest.raises(KeyError, match="no 1"):
        fan_out(fan_out_jobs.refuses, range(3), ray_address="local")
