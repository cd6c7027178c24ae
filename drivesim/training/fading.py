"""Frames that have faded, as pictures do that were imagined for long, so that a model learns to mend them.

They blur, sink into fog, and stand in another light, all frames of a rollout alike.

Letters: `B` rollouts, `T` frames, `C` colours, `H W` pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from drivesim.tokenizer.vqgan import normalized, to_uint8

BLUR_FACTORS = (1, 2, 4, 8)
MOST_FOG = 0.8
LIGHT_SHARE = 0.5  # of the faded rows, which stand in another light
LIGHTS = (1 / 3, 2.0)  # times as light, drawn on a logarithmic scale
TINTS = (0.75, 1.33)  # of each colour besides


def faded(frames_BTHWC: Tensor, share: float) -> Tensor:
    """Return uint8 frames of which a share of the rows has faded, drawn by torch's own generator."""
    faded_BTHWC = frames_BTHWC.clone()
    for row, frames_THWC in enumerate(frames_BTHWC):
        is_faded, fog = bool(torch.rand(()) < share), MOST_FOG * float(torch.rand(()) ** 2)
        factor = BLUR_FACTORS[int(torch.randint(len(BLUR_FACTORS), ()))]
        if is_faded:
            x_TCHW = normalized(frames_THWC)
            size, mean = x_TCHW.shape[-2:], x_TCHW.mean(dim=(0, 2, 3)).view(1, 3, 1, 1)
            x_TCHW = functional.interpolate(functional.avg_pool2d(x_TCHW, factor), size=size, mode="bilinear")
            x_TCHW = torch.lerp(x_TCHW, mean, fog)
            if torch.rand(()) < LIGHT_SHARE:
                gain_C11 = (_between(1, LIGHTS) * _between(3, TINTS)).view(3, 1, 1).to(x_TCHW.device)
                x_TCHW = (x_TCHW + 1) * gain_C11 - 1
            faded_BTHWC[row] = to_uint8(x_TCHW)
    return faded_BTHWC


def _between(count: int, bounds: tuple[float, float]) -> Tensor:
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return torch.exp(low + (high - low) * torch.rand(count))
