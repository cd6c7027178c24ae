"""The hazard head: what it reads, what it says, and that rows do not see each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DT_S, drivable_along, make_scene
from small_models import small_world_model
from torch import Tensor, nn

from drivesim.dynamics import planar_motion
from drivesim.errors import InputError
from drivesim.hazard import HazardHead, load_hazard_head, save_hazard_head, within
from drivesim.hazard_inputs import HazardConfig, HazardInputs, facts_of, hide_map, read_state
from drivesim.scene.road_map import ground_of, road_map
from drivesim.scene.types import front_camera
from drivesim.world_model.places import Places
from drivesim.world_model.world_state import WorldState

CONFIG = HazardConfig(picture_widths=[8, 8], width=16, num_blocks=1, place_channels=4, fsq_levels=[4, 4, 3])
STRAIGHT = np.stack([np.arange(0.0, 60.0), np.zeros(60)], axis=1)


@pytest.fixture(scope="module")
def head() -> HazardHead:
    """Return a head whose every part acts."""
    torch.manual_seed(0)
    made = HazardHead(CONFIG).eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return made


@pytest.fixture(scope="module")
def state() -> WorldState:
    """Return the state of three cars, the last of them without a map."""
    scene, model = make_scene(8), small_world_model()
    frames = torch.from_numpy(np.stack(scene.frames[:6])).unflatten(0, (3, 2))
    twist = torch.tensor([[[8.0, 0.1]] * 2, [[3.0, -0.2]] * 2, [[0.0, 0.0]] * 2])
    roads = road_map(scene.drivable)
    pose = np.concatenate([scene.xy_m[:3], scene.yaw_rad[:3, None]], axis=1)
    places = Places.begin((roads, roads, None), ground_of(scene.camera), pose)
    seen = model.observe(frames, twist, scene.camera, places=places)
    return model.imagine(seen, twist[:, -1]).state


def random_inputs(count: int, config: HazardConfig = CONFIG) -> HazardInputs:
    generator = torch.Generator().manual_seed(1)
    return HazardInputs(
        pictures_BCHW=torch.randint(0, 256, (count, 6, 32, 56), generator=generator, dtype=torch.uint8),
        token_ids_BS=torch.randint(0, 48, (count, 112), generator=generator),
        facts_BF=torch.rand(count, config.num_facts, generator=generator),
    )


def one_row(state: WorldState, row: int) -> WorldState:
    """Return the state of one of the cars alone, as far as the head reads it."""
    part = slice(row, row + 1)
    places = state.places.rows([row])
    names = ("token_ids_BS", "frames_BCHW", "earlier_BCHW", "twist_BA", "prompt_BLC", "guide_BSG")
    return replace(state, places=places, **{name: getattr(state, name)[part] for name in names})


def values(hazards) -> Tensor:
    return torch.stack([hazards.collision, hazards.off_road, hazards.contact])


def test_probabilities_of_every_row_lie_between_0_and_1(head: HazardHead, state: WorldState) -> None:
    said = values(head.assess(state))
    assert said.shape == (3, 3)
    assert said.dtype == torch.float32
    assert bool(((said >= 0) & (said <= 1)).all())


def test_a_row_alone_says_the_same_bits_as_in_a_batch(head: HazardHead, state: WorldState) -> None:
    together = values(head.assess(state))
    alone = torch.cat([values(head.assess(one_row(state, row))) for row in range(3)], dim=1)
    assert torch.equal(together, alone)


def test_assessing_changes_neither_state_nor_random_numbers(head: HazardHead, state: WorldState) -> None:
    before, rng = state.frames_BCHW.clone(), torch.get_rng_state()
    head.assess(state)
    assert torch.equal(before, state.frames_BCHW)
    assert torch.equal(rng, torch.get_rng_state())


def test_it_works_without_a_map_and_the_map_matters(head: HazardHead, state: WorldState) -> None:
    without = replace(state, places=None)
    assert not torch.equal(values(head.assess(state))[:, 0], values(head.assess(without))[:, 0])
    assert torch.equal(values(head.assess(state))[:, 2], values(head.assess(without))[:, 2])
    assert torch.equal(read_state(without, CONFIG).facts_BF, hide_map(read_state(state, CONFIG).facts_BF))


def test_every_part_of_the_state_that_is_read_matters(head: HazardHead, state: WorldState) -> None:
    said = values(head.assess(state))
    for changed in (
        replace(state, frames_BCHW=-state.frames_BCHW),
        replace(state, earlier_BCHW=-state.earlier_BCHW),
        replace(state, token_ids_BS=(state.token_ids_BS + 7) % 48),
        replace(state, twist_BA=state.twist_BA + 1),
        replace(state, num_imagined_B=torch.full_like(state.num_imagined_B, 30)),
    ):
        assert not torch.equal(said, values(head.assess(changed)))


def test_hazards_compose_to_a_probability_that_grows_with_each_of_them() -> None:
    hazard = torch.tensor([[[0.0, 0.0, 0.0], [0.5, 0.5, 0.0]]])
    assert within(hazard).tolist() == [[0.0, 0.75]]
    assert bool((within(hazard + 0.1) > within(hazard)).all())


def test_collision_is_at_least_contact(head: HazardHead, state: WorldState) -> None:
    hazards = head.assess(state)
    assert bool((hazards.collision >= hazards.contact - 1e-6).all())


def test_calibration_moves_the_probabilities_of_its_own_event(head: HazardHead) -> None:
    inputs = random_inputs(4)
    calm = HazardHead(replace(CONFIG, logit_shift=[-2.0, 0.0])).eval()
    calm.load_state_dict(head.state_dict())
    said, calmer = head.judge(inputs), calm.judge(inputs)
    assert bool((calmer.collision < said.collision).all())
    assert torch.equal(calmer.off_road, said.off_road)


def test_facts_tell_how_far_the_corners_will_be_from_the_edge() -> None:
    roads = road_map(drivable_along(STRAIGHT, half_width_m=4.0, resolution_m=0.25))
    along = facts_of(np.array([6.0, 0.0]), 0.0, roads, np.array([20.0, 0.0, 0.0]), CONFIG)
    leaving = facts_of(np.array([6.0, 0.0]), 0.0, roads, np.array([20.0, 0.0, 1.2]), CONFIG)
    assert along.shape == (CONFIG.num_facts,)
    assert along[3] == 1.0
    steps = along[4:].reshape(3, 7, 5)
    straight = leaving[4:].reshape(3, 7, 5)[1]
    assert np.allclose(steps[1, :, 4], 1.0, atol=0.08)  # the middle of the car stays 4 m from either edge
    assert np.allclose(steps[1, :, 0], steps[1, :, 1], atol=0.1)
    assert straight[0, 4] > 0.5
    assert straight[6].max() < 0  # all of the car will be beside the road in a second
    assert (np.diff(straight[:, 4]) < 0.01).all()


def test_facts_follow_the_car_as_its_motion_does() -> None:
    roads = road_map(drivable_along(STRAIGHT, half_width_m=4.0, resolution_m=0.25))
    twist, pose = np.array([7.0, 0.4]), np.array([20.0, 0.5, 0.1])
    ahead = facts_of(twist, 0.0, roads, pose, CONFIG)[4:].reshape(3, 7, 5)[1]
    dx, dy, dyaw = planar_motion(7.0, 0.4, 3 * DT_S)
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    later = pose + np.array([cos * dx - sin * dy, sin * dx + cos * dy, dyaw])
    there = facts_of(twist, 0.0, roads, later, CONFIG)[4:].reshape(3, 7, 5)[1]
    assert np.allclose(ahead[3], there[0], atol=1e-9)


def test_beyond_the_map_there_is_no_road() -> None:
    roads = road_map(drivable_along(STRAIGHT, half_width_m=4.0))
    facts = facts_of(np.array([6.0, 0.0]), 0.0, roads, np.array([1e4, -1e4, 0.0]), CONFIG)
    assert np.allclose(facts[4:], -1)


def test_depth_of_the_imagination_is_a_fact() -> None:
    facts = [facts_of(np.zeros(2), depth, None, np.zeros(3), CONFIG) for depth in (0.0, 60.0)]
    assert facts[0][2] == 0
    assert 1.0 < facts[1][2] < 1.1


def test_a_checkpoint_brings_back_the_head_with_its_thresholds(head: HazardHead, tmp_path: Path) -> None:
    config = replace(CONFIG, contact_threshold=0.3, collision_threshold=0.4, logit_scale=[1.5, 0.5])
    saved = HazardHead(config).eval()
    saved.load_state_dict(head.state_dict())
    save_hazard_head(saved, tmp_path / "head.safetensors", facts={"step": 3})
    loaded = load_hazard_head(tmp_path / "head.safetensors")
    assert loaded.config == config
    assert (loaded.contact_threshold, loaded.collision_threshold) == (0.3, 0.4)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    inputs = random_inputs(5)
    assert torch.allclose(values(loaded.judge(inputs)), values(saved.judge(inputs)), atol=0.03)


def test_bad_weights_and_states_are_refused(head: HazardHead, state: WorldState, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights named 'nothing'"):
        load_hazard_head("nothing")
    with pytest.raises(InputError, match="a hazard-head is needed"):
        load_hazard_head("inverse-dynamics")
    with pytest.raises(ValueError, match="pictures of 128x224"):
        head.assess(replace(state, frames_BCHW=state.frames_BCHW[..., :64]))
    with pytest.raises(ValueError, match="reads 112 tokens"):
        head.assess(replace(state, token_ids_BS=state.token_ids_BS[:, :50]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width_px": 100}, "not divisible"),
        ({"contact_threshold": 1.0}, "thresholds lie in"),
        ({"num_steps": 0}, "num_steps >= 1"),
        ({"num_skipped_rows": 8}, "num_skipped_rows"),
        ({"num_contact_steps": 0}, "num_contact_steps"),
    ],
)
def test_sizes_that_make_no_head_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HazardConfig(**changes)


def test_the_shipped_head_is_small_and_fits_the_shipped_world() -> None:
    shipped = load_hazard_head()
    assert sum(parameter.numel() for parameter in shipped.parameters()) < 300_000
    camera = front_camera()
    assert (shipped.config.width_px, shipped.config.height_px) == (camera.width_px, camera.height_px)
    assert 0 < shipped.contact_threshold < 1
    said = values(shipped.judge(random_inputs(2, shipped.config)))
    assert bool(((said >= 0) & (said <= 1)).all())
