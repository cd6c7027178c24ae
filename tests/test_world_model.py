"""WorldModel: states are values, seeds decide, actions and history matter."""

import numpy as np
import pytest
import torch
from small_models import small_world_model

from drivesim.scene.types import front_camera
from drivesim.world_model.sampler import SamplerConfig


@pytest.fixture(scope="module")
def model():
    return small_world_model()


@pytest.fixture
def state(model, rng):
    frames = torch.from_numpy(rng.integers(0, 256, (2, 4, 128, 224, 3), dtype=np.uint8))
    return model.observe(frames, torch.full((2, 4, 2), 0.3), front_camera())


TWIST = torch.tensor([[8.0, 0.0], [8.0, 0.0]])


def test_imagine_returns_a_frame_and_leaves_the_state_alone(model, state):
    first = model.imagine(state, TWIST)
    assert first.frames_BHWC.shape == (2, 128, 224, 3)
    assert first.frames_BHWC.dtype == torch.uint8
    assert ((first.confidence_B > 0) & (first.confidence_B <= 1)).all()
    model.imagine(first.state, TWIST)
    again = model.imagine(state, TWIST)
    assert torch.equal(first.token_ids_BS, again.token_ids_BS)
    assert state.num_frames == 4
    assert first.state.num_frames == 5


def test_a_batch_equals_its_rows(model, state, rng):
    frames = torch.from_numpy(rng.integers(0, 256, (1, 2, 128, 224, 3), dtype=np.uint8))
    twist = torch.full((1, 2, 2), 0.3)
    alone = model.imagine(model.observe(frames, twist, front_camera()), TWIST[:1])
    pair = model.observe(torch.cat([frames, 255 - frames]), twist.repeat(2, 1, 1), front_camera())
    assert torch.equal(model.imagine(pair, TWIST).token_ids_BS[:1], alone.token_ids_BS)


def test_the_seed_decides_what_is_drawn(model, state):
    sampler = SamplerConfig(temperature=1.0)

    def draw(seed):
        return model.imagine(
            state, TWIST, generator=torch.Generator().manual_seed(seed), sampler=sampler
        ).token_ids_BS

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_the_action_changes_the_frame(model, state):
    left = model.imagine(state, torch.tensor([[8.0, 0.6], [8.0, 0.6]])).token_ids_BS
    right = model.imagine(state, torch.tensor([[8.0, -0.6], [8.0, -0.6]])).token_ids_BS
    assert not torch.equal(left, right)


@pytest.mark.parametrize("bad", [[[8.0, float("nan")]] * 2, [[8.0, 0.0]]])
def test_impossible_twists_are_refused(model, state, bad):
    with pytest.raises(ValueError, match="twist must be finite"):
        model.imagine(state, torch.tensor(bad))


def test_wrong_histories_are_refused(model):
    with pytest.raises(ValueError, match=r"uint8 \(B, T, 128, 224, 3\)"):
        model.observe(torch.zeros(1, 2, 64, 64, 3, dtype=torch.uint8), torch.zeros(1, 2, 2), front_camera())
    with pytest.raises(ValueError, match="twist"):
        model.observe(torch.zeros(1, 2, 128, 224, 3, dtype=torch.uint8), torch.zeros(1, 3, 2), front_camera())
