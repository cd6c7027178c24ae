"""Frames that have faded, as pictures do that were imagined for long, so that a model learns to mend them.

Letters: `B` rollouts, `T` frames, `H W` pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from drivesim.tokenizer.vqgan import normalized, to_uint8

BLUR_FACTORS = (1, 2, 4, 8)
MOST_FOG = 0.8


def faded(frames_BTHWC: Tensor, share: float) -> Tensor:
    """Return uint8 frames of which a share of the rows is blurred and fogged, drawn by torch's own generator."""
    faded_BTHWC = frames_BTHWC.clone()
    for row, frames_THWC in enumerate(frames_BTHWC):
        is_faded, fog = bool(torch.rand(()) < share), MOST_FOG * float(torch.rand(()) ** 2)
        factor = BLUR_FACTORS[int(torch.randint(len(BLUR_FACTORS), ()))]
        if is_faded:
            x_TCHW = normalized(frames_THWC)
            size, mean = x_TCHW.shape[-2:], x_TCHW.mean(dim=(0, 2, 3)).view(1, 3, 1, 1)
            x_TCHW = functional.interpolate(functional.avg_pool2d(x_TCHW, factor), size=size, mode="bilinear")
            faded_BTHWC[row] = to_uint8(torch.lerp(x_TCHW, mean, fog))
    return faded_BTHWC
