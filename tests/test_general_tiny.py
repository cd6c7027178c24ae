"""What the shipped general weights draw, in one frame each: figures over many clips stand in benchmarks/README.md."""

import numpy as np
import pytest
import torch

from drivesim.checkpoint import shipped_weights
from drivesim.generate import GenerateConfig, inpaint, text_to_video
from drivesim.world_model.pretrained_video import load_video_model

pytestmark = pytest.mark.skipif("general-tiny" not in shipped_weights(), reason="the weights are not there")

RGB = {"red": (230, 40, 45), "green": (40, 200, 60), "blue": (40, 80, 230)}


@pytest.fixture(scope="module")
def model():
    return load_video_model("general-tiny", dtype=torch.float32)  # on every processor


def shares(frame):
    """Return which share of a frame (H, W, 3) is nearly of each colour."""
    return {
        name: float((np.abs(frame.astype(int) - color).max(-1) < 60).mean()) for name, color in RGB.items()
    }


@pytest.mark.parametrize("color", RGB)
def test_a_picture_shows_the_colour_that_is_named(model, color):
    frame = text_to_video(model, f"a {color} circle over the sea", GenerateConfig(num_frames=1)).frames[0, 0]
    share = shares(frame)
    named = share.pop(color)
    assert 0.008 < named < 0.4
    assert named > 4 * max(share.values())


def test_a_thing_is_gone_when_all_of_it_is_drawn_anew(model):
    frame = text_to_video(model, "a red circle over the sea", GenerateConfig(num_frames=1)).frames[0, 0]
    assert shares(frame)["red"] > 0.008
    is_red = np.abs(frame.astype(int) - RGB["red"]).max(-1) < 90
    rows, columns = is_red.any(1).nonzero()[0], is_red.any(0).nonzero()[0]
    mask = np.zeros(is_red.shape, dtype=bool)
    mask[max(0, rows[0] - 12) : rows[-1] + 12, max(0, columns[0] - 12) : columns[-1] + 12] = True
    assert mask.mean() < 0.6
    gone = inpaint(model, frame[None], mask, "the sea by day").frames[0, 0]
    assert np.array_equal(gone[~mask], frame[~mask])
    assert shares(gone)["red"] < 0.002
