"""Rollouts that go on between training steps: every step's frames follow from its number alone."""

import itertools

import numpy as np
import pytest
import torch

from drivesim.scene.road_map import PACKED_DIM, UNKNOWN
from drivesim.training.data import RecordedClips
from drivesim.training.running_rollouts import RolloutConfig, RolloutSchedule, rollout_batches

CONFIG = RolloutConfig(
    num_groups=3,
    num_true_frames=2,
    frames_per_step=2,
    shortest=4,
    longest=12,
    no_map_share=0.5,
    no_markings_share=0.5,
)


def numbered_clips(num_clips: int = 5, num_frames: int = 20) -> RecordedClips:
    """Clips whose twist tells clip and frame."""
    clip, frame = np.meshgrid(np.arange(num_clips), np.arange(num_frames), indexing="ij")
    twist = np.stack([clip, frame], axis=-1).astype(np.float32)
    size = (num_clips, num_frames)
    return RecordedClips(
        frames=np.zeros((*size, 2, 2, 3), np.uint8),
        twist=twist,
        xy_m=np.zeros((*size, 2)),
        yaw_rad=np.zeros(size),
        is_collision=np.zeros(size, bool),
        is_off_road=np.zeros(size, bool),
        road=np.ones((*size, PACKED_DIM, 1, 1), np.int8),
        rate_hz=6.0,
        path=None,
    )


def batches(start_step: int, count: int):
    source = rollout_batches(
        numbered_clips(), CONFIG, start_step=start_step, batch_size=4, seed=1, rank=0, world_size=1
    )
    return list(itertools.islice(source, count))


def test_rollouts_go_on_where_they_were():
    last: dict[int, torch.Tensor] = {}
    depths = []
    for batch in batches(0, 200):
        group, twist = int(batch["group"]), batch["twist"]
        depths.append(int(batch["depth"]))
        if depths[-1] == 0:
            assert twist.shape[1] == CONFIG.num_true_frames + CONFIG.frames_per_step
        else:
            assert twist.shape[1] == CONFIG.frames_per_step
            torch.testing.assert_close(twist[:, 0], last[group] + torch.tensor([0.0, 1.0]))
        torch.testing.assert_close(twist.diff(dim=1)[..., 1], torch.ones(4, twist.shape[1] - 1))
        last[group] = twist[:, -1]
    assert max(depths) == CONFIG.longest - CONFIG.frames_per_step
    assert depths.count(0) > 20


@pytest.mark.parametrize("start_step", [1, 17, 60])
def test_a_resumed_run_sees_the_same_frames(start_step):
    for first, second in zip(batches(0, start_step + 9)[start_step:], batches(start_step, 9), strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_groups_do_not_keep_step():
    schedule = RolloutSchedule(CONFIG, [0])
    depths = {index: [] for index in range(3)}
    for step in range(300):
        group = schedule.next(step)
        depths[group.index].append(group.step)
        group.step += 1
    assert depths[0] != depths[1] != depths[2]


def test_shares_of_the_rollouts_have_no_map_no_markings_and_no_agents():
    roads = torch.cat([batch["road"][:, 0, :, 0, 0] for batch in batches(0, 150)])
    has_no_map, has_no_markings, has_no_agents = (roads == UNKNOWN).unbind(1)
    assert 0.3 < has_no_map.float().mean() < 0.7
    assert has_no_markings[has_no_map].all()
    assert 0.3 < has_no_markings[~has_no_map].float().mean() < 0.7
    assert 0.05 < has_no_agents.float().mean() < 0.3
    assert 0.05 < has_no_agents[has_no_map].float().mean() < 0.3


@pytest.mark.parametrize(
    "bad", [{"shortest": 1}, {"longest": 3, "shortest": 4}, {"no_map_share": 1.5}, {"no_agents_share": -1}]
)
def test_rollouts_without_a_length_are_refused(bad):
    with pytest.raises(ValueError, match="rollouts"):
        RolloutConfig(**bad)
