"""Other road users: moved on from where they were, seen in the picture, read from annotations, told to the model."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.simulator import draw_spec
from drivesim.scene.agents import KNOWN_S, agent_cover, agents_at, agents_before, moving
from drivesim.scene.nuscenes import EMBEDDED_ROOT, EMBEDDED_VERSION, embedded_dataset, open_dataset
from drivesim.scene.road_map import ground_of, packed_road_views, road_view
from drivesim.scene.types import Agents, front_camera
from drivesim.training.scene_source import part_of
from drivesim.training.time_split import Segment
from drivesim.world_model.places import Places, place_in, shows_agents
from envs.imagined_worlds import ImaginedWorlds
from tests.helpers import make_scene
from tests.small_models import small_world_model

SIZE = (4.0, 2.0, 1.5)
EGO = np.array([100.0, 50.0, np.pi / 2])  # looks north


def agents(*rows, size=SIZE) -> Agents:
    """Return agents of (x, y, yaw, speed)."""
    values = np.array(rows, dtype=float).reshape(-1, 4)
    return Agents(
        xy_m=values[:, :2],
        yaw_rad=values[:, 2],
        speed_mps=values[:, 3],
        size_m=np.tile(np.array(size), (len(values), 1)),
    )


def test_only_what_may_be_before_the_camera_counts():
    others = agents((100, 70, 0, 0), (100, 30, 0, 0), (100, 115, 0, 0), (140, 49, 0, 0))
    near = agents_before(others, EGO, front_camera())
    np.testing.assert_array_equal(near.xy_m, [[100, 70], [100, 115], [140, 49]])
    rear = front_camera()
    rear = replace(rear, ego_from_cam=rear.ego_from_cam @ np.diag([-1.0, 1.0, -1.0, 1.0]))
    np.testing.assert_array_equal(agents_before(others, EGO, rear).xy_m, [[100, 30], [140, 49]])
    assert agent_cover(others, rear, EGO, cell_px=4).max() > 0.5
    far = agent_cover(agents((100, 115, np.pi / 2, 0)), front_camera(), EGO, cell_px=4)
    assert not far.any()


def test_agents_begin_where_they_are_wherever_the_route_is():
    route = np.array([[0.0, 0.0], [50.0, 0.0], [50.0, 60.0]])
    everywhere = agents(*(np.random.default_rng(0).uniform([-40, -20, -3, 0], [80, 90, 3, 9], (200, 4))))
    again = moving(everywhere, route).at(0.0)
    np.testing.assert_allclose(again.xy_m, everywhere.xy_m, atol=1e-9)
    np.testing.assert_allclose(np.cos(again.yaw_rad - everywhere.yaw_rad), 1.0)


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="agents need"):
        Agents(xy_m=np.zeros((2, 2)), yaw_rad=np.zeros(2), speed_mps=np.zeros(1), size_m=np.zeros((2, 3)))


def test_without_a_route_an_agent_goes_straight_on():
    later = moving(agents((10, 5, np.pi / 6, 6)), None).at(2.0)
    np.testing.assert_allclose(later.xy_m, [[10 + 12 * np.cos(np.pi / 6), 5 + 6]])
    np.testing.assert_allclose(later.yaw_rad, [np.pi / 6])


def test_agents_keep_to_their_lane_along_a_bend_in_both_directions():
    angle = np.linspace(0, np.pi, 400)
    bend = 50 * np.stack([np.sin(angle), 1 - np.cos(angle)], axis=1)  # to the left, about (0, 50)
    start = agents((0.0, -2.0, 0.0, 10.0), (50.0 - 3.0, 50.0, -np.pi / 2, 10.0))
    follower, oncoming = moving(start, bend).at(3.0).xy_m
    turned_rad = 30 / 50  # metres along the route, not along the lane
    np.testing.assert_allclose(follower, [52 * np.sin(turned_rad), 50 - 52 * np.cos(turned_rad)], atol=0.05)
    other_rad = np.pi / 2 - 30 / 50
    np.testing.assert_allclose(oncoming, [47 * np.sin(other_rad), 50 - 47 * np.cos(other_rad)], atol=0.05)
    headings = moving(start, bend).at(3.0).yaw_rad
    np.testing.assert_allclose(headings, [turned_rad, other_rad - np.pi], atol=0.01)


def test_an_agent_across_the_route_does_not_follow_it():
    route = np.stack([np.arange(0.0, 100.0), np.zeros(100)], axis=1)
    crossing = moving(agents((40, -8, np.pi / 2, 5), (40, 30, 0, 5)), route).at(1.0)
    np.testing.assert_allclose(crossing.xy_m, [[40, -3], [45, 30]], atol=1e-9)


def test_times_before_the_start_lead_back():
    route = np.stack([np.arange(0.0, 100.0), np.zeros(100)], axis=1)
    there = moving(agents((40, 2, 0, 6)), route)
    np.testing.assert_allclose(there.at(-1.0).xy_m, [[34, 2]], atol=1e-9)


def test_the_cover_is_the_box_in_the_picture():
    camera = front_camera()
    cover = agent_cover(agents((100.0, 71.7 + 2.0, np.pi / 2, 0)), camera, EGO, cell_px=4)
    assert cover.shape == (32, 56)
    # The rear is 20 m before the camera: 2 m wide and 1.5 m high at a focal length of 160 px, centred, on the ground.
    area_px = cover.sum() * 16
    assert area_px == pytest.approx(2 * 8 * 1.5 * 8, rel=0.1)
    rows, columns = np.nonzero(cover > 0.5)
    assert 4 * (columns.min() + columns.max() + 1) / 2 == pytest.approx(camera.cx_px, abs=4)
    assert 4 * (rows.max() + 1) == pytest.approx(camera.cy_px + 1.5 * 8, abs=4)


def test_a_box_beside_the_camera_is_cut_and_one_behind_it_is_not_seen():
    beside = agent_cover(agents((102.0, 52.0, np.pi / 2, 0), size=(8, 2, 3)), front_camera(), EGO, cell_px=4)
    assert beside[:, 40:].max() == 1.0
    assert beside[:, :28].max() == 0.0
    behind = agent_cover(agents((100.0, 45.0, np.pi / 2, 0)), front_camera(), EGO, cell_px=4)
    assert not behind.any()


def test_the_reference_world_shows_cars_where_the_view_says():
    for seed in range(3, 40):
        scene = record(draw_spec(seed), driver="good", num_frames=3, driver_seed=seed).scene
        views = packed_road_views(None, scene.camera, scene.xy_m, scene.yaw_rad, scene.agents)
        if views[1, 2].max() > 100:
            break
    alone = [agents() for _ in scene.agents]
    empty = packed_road_views(None, scene.camera, scene.xy_m, scene.yaw_rad, alone)
    assert views[1, 2].max() > 100
    assert not empty[:, 2].any()


def test_a_view_tells_agents_that_are_none_from_agents_that_are_unknown():
    ground = ground_of(front_camera())
    unknown, nobody = road_view(None, ground, EGO), road_view(None, ground, EGO, agents())
    assert not unknown.any()
    assert (nobody[5] == 1).all()
    assert not nobody[4].any()


def test_tokens_of_agents_are_told():
    view = torch.zeros(1, 6, 8, 8)
    view[0, 4, :4, :4] = 1.0
    view[0, 4, 4:5, 4:] = 0.5
    assert shows_agents(view, 16).tolist() == [[True, False, False, False]]


# ------------------------------------------------------------------------------------------------ annotations


@pytest.fixture(scope="module")
def embedded():
    return embedded_dataset().load("scene-2005")


def test_annotated_agents_lie_where_the_table_says(embedded):
    folder = EMBEDDED_ROOT / EMBEDDED_VERSION
    tables = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("scene", "sample", "sample_annotation")
    }
    token = next(row["token"] for row in tables["scene"] if row["name"] == "scene-2005")
    samples = sorted(
        (row for row in tables["sample"] if row["scene_token"] == token), key=lambda row: row["timestamp"]
    )
    checked = 0
    for number in (2, 6):
        boxes = [
            row for row in tables["sample_annotation"] if row["sample_token"] == samples[number]["token"]
        ]
        frame = round((samples[number]["timestamp"] - samples[0]["timestamp"]) * 6e-6)
        found = embedded.agents[frame]
        assert len(found) == len(boxes)
        for box in boxes:
            x, y, _ = box["translation"]
            nearest = np.hypot(*(found.xy_m - [x, y]).T).argmin()
            np.testing.assert_allclose(found.xy_m[nearest], [x, y], atol=0.5)
            width, length, height = box["size"]
            np.testing.assert_allclose(found.size_m[nearest], [length, width, height])
            checked += 1
    assert checked >= 2


def test_between_annotations_agents_move_at_their_speed(embedded):
    first, second = embedded.agents[7], embedded.agents[8]  # between two samples
    assert len(first) == len(second) > 0
    gone_m = np.hypot(*(second.xy_m - first.xy_m).T)
    np.testing.assert_allclose(gone_m * 6, np.abs(first.speed_mps), atol=2.0)  # some speed up


def test_agents_of_a_scene_pickle(embedded):
    again = pickle.loads(pickle.dumps(embedded.agents))
    np.testing.assert_array_equal(again[3].xy_m, embedded.agents[3].xy_m)
    part = again[2:5]
    assert len(part) == 3
    np.testing.assert_array_equal(part[1].xy_m, again[3].xy_m)


def test_what_is_annotated_later_is_not_looked_at(copied):
    path = copied / EMBEDDED_VERSION / "sample_annotation.json"
    whole = open_dataset(copied, EMBEDDED_VERSION).load("scene-2005")
    samples = json.loads((copied / EMBEDDED_VERSION / "sample.json").read_text())
    tokens = {
        row["name"]: row["token"]
        for row in json.loads((copied / EMBEDDED_VERSION / "scene.json").read_text())
    }
    times = sorted(row["timestamp"] for row in samples if row["scene_token"] == tokens["scene-2005"])
    early = {row["token"] for row in samples if row["timestamp"] <= times[2]}
    rows = [row for row in json.loads(path.read_text()) if row["sample_token"] in early]
    path.write_text(json.dumps(rows))
    cut = open_dataset(copied, EMBEDDED_VERSION).load("scene-2005")
    frame = round((times[2] - times[0]) * 6e-6)
    seen_twice = 0
    for index in range(frame, frame + 3):
        found, expected = cut.agents[index], whole.agents[index]
        np.testing.assert_allclose(found.xy_m, expected.xy_m)
        np.testing.assert_allclose(found.speed_mps, expected.speed_mps)
        seen_twice += len(found)
    assert seen_twice > 0
    assert cut.agents[frame + 6] is None or not len(cut.agents[frame + 6])


@pytest.fixture
def copied(tmp_path):
    """Return a data root with the tables of the embedded one, to be changed."""
    for path in EMBEDDED_ROOT.iterdir():
        if path.name != EMBEDDED_VERSION:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / EMBEDDED_VERSION).mkdir()
    for path in (EMBEDDED_ROOT / EMBEDDED_VERSION).iterdir():
        (tmp_path / EMBEDDED_VERSION / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_without_annotations_nothing_is_known(copied):
    (copied / EMBEDDED_VERSION / "sample_annotation.json").unlink()
    assert open_dataset(copied, EMBEDDED_VERSION).load("scene-2005").agents is None


def test_where_a_scene_has_no_annotation_nothing_is_known_of_it(copied):
    (copied / EMBEDDED_VERSION / "sample_annotation.json").write_text("[]")
    scene = open_dataset(copied, EMBEDDED_VERSION).load("scene-2005")
    assert scene.agents[4] is None
    assert agents_at(scene, 4) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{", "truncated"), ('[{"token": "a"}]', "sample_token"), ("no", "not a JSON list")],
)
def test_a_broken_table_is_named_with_a_way_out(copied, text, message):
    path = copied / EMBEDDED_VERSION / "sample_annotation.json"
    path.write_text(text)
    scene = open_dataset(copied, EMBEDDED_VERSION).load("scene-2005")  # opening does not read it
    with pytest.raises(InputError, match=rf"sample_annotation.json.*{message}.*uses_agents=false"):
        _ = scene.agents[0]


def test_categories_that_no_car_runs_into_are_left_out(copied):
    path = copied / EMBEDDED_VERSION / "category.json"
    rows = json.loads(path.read_text())
    for row in rows:
        row["name"] = "animal"
    path.write_text(json.dumps(rows))
    assert open_dataset(copied, EMBEDDED_VERSION).load("scene-2005").agents[6] is None


# ------------------------------------------------------------------------------------------------ the world model


def test_agents_change_the_frame_and_each_row_has_its_own():
    model = small_world_model()
    torch.nn.init.normal_(model.causal_decoder.out.weight, std=0.1)
    camera, pose = front_camera(), np.tile(EGO, (3, 1))
    known = [moving(agents((100.0, 60.0, np.pi / 2, 3.0)), None), moving(agents(), None), None]
    places = Places.begin([None] * 3, ground_of(camera), pose, known)
    frames = torch.zeros(3, 3, 128, 224, 3, dtype=torch.uint8)
    twist = torch.tensor([6.0, 0.0])
    state = model.observe(frames, twist.expand(3, 3, 2), camera, places=places)
    view = state.places.view()
    assert view[0, 4].max() == 1.0
    assert view[1, 5].min() == 1.0
    assert not view[2].any()
    with_car, empty, unknown = model.imagine(state, twist.expand(3, 2)).frames_BHWC
    assert not torch.equal(with_car, empty)
    assert not torch.equal(empty, unknown)
    swapped = model.observe(frames, twist.expand(3, 3, 2), camera, places=places.rows([1, 0, 2]))
    assert torch.equal(model.imagine(swapped, twist.expand(3, 2)).frames_BHWC[1], with_car)


def test_time_passes_for_agents_as_the_car_drives():
    camera = front_camera()
    known = (moving(agents((0.0, 100.0, 0.0, 8.0)), None),)
    places = Places.begin((None,), ground_of(camera), np.zeros((1, 3)), known)
    places = places.after(np.array([[2.0, 0.0]]), 0.5).after(np.array([[2.0, 0.0]]), 0.5)
    np.testing.assert_allclose(places.agents[0].at(float(places.time_s[0])).xy_m, [[8.0, 100.0]])


def test_after_some_seconds_nobody_knows_where_agents_are():
    ahead = moving(agents((20.0, 0.0, 0.0, 0.0)), None)
    places = Places.begin((None,), ground_of(front_camera()), np.zeros((1, 3)), (ahead,))
    for step in range(1, 80):
        places = places.after(np.array([[0.0, 0.0]]), 1 / 6)
        is_known = step / 6 <= KNOWN_S + 1e-9
        assert places.view()[0, 5].max() == is_known
        assert (places.view()[0, 4].max() > 0) == is_known


def test_an_env_is_told_of_the_start_alone(embedded):
    from drivesim.episode import EpisodeConfig

    model = small_world_model()
    later = [embedded.agents[t] if t <= 5 else agents((0, 0, 0, 0)) for t in range(len(embedded))]
    pictures = []
    for scene, uses in ((embedded, True), (replace(embedded, agents=later), True), (embedded, False)):
        worlds = ImaginedWorlds(EpisodeConfig(uses_agents=uses), [scene], model)
        worlds.begin([0], [5], [1])
        pictures.append(worlds.save(0).state.places.after(np.array([[5.0, 0.0]]), 1 / 6).view())
    assert torch.equal(pictures[0], pictures[1])
    assert pictures[0][0, 5].min() == 1.0
    assert pictures[2][0, 5].max() == 0.0


def test_the_place_in_a_scene_has_map_and_agents(embedded):
    places = place_in(embedded, 3)
    view = places.view()
    assert view[0, 1].any()
    assert view[0, 5].all()
    assert place_in(make_scene(8), 3).agents == (None,)


def test_part_of_a_scene_keeps_its_agents(embedded):
    part = part_of(embedded, Segment(scene="scene-2005", first=6, stop=20))
    part.validate()
    np.testing.assert_array_equal(part.agents[2].xy_m, embedded.agents[8].xy_m)
