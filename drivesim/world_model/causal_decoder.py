"""CausalDecoder: a frame from its tokens, given what the motion field expects of it.

Sixteen by sixteen pixels of detail do not fit into one token, but most of it was in the last frame already. So the
tokenizer's picture and the warped last frame are blended, pixel by pixel, with a small correction on top: what is
expected keeps its sharpness, what is new or different comes from the tokens. Codecs call such a frame a P-frame.

Letters: see ``drivesim/world_model/__init__.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from drivesim.scene.road_map import VIEW_DIM
from drivesim.tokenizer.convolution import Convolution
from drivesim.world_model.motion_field import CELL_PX, CellBlock, Expected, joined, unshuffled

NUM_HINTS = 1 + VIEW_DIM  # per cell, besides pictures and features: share seen before, view of the map
UNSEEN_LOGIT, SEEN_LOGIT = -2.5, 1.5  # of the blend, before training


@dataclass(kw_only=True, slots=True)
class CausalDecoderConfig:
    """Widths at strides 4 and 8."""

    width: int = 64
    inner_width: int = 96

    def __post_init__(self) -> None:
        """Refuse widths that group norm cannot split."""
        if self.width % 8 or self.inner_width % 8 or min(self.width, self.inner_width) < 8:
            raise ValueError(
                f"causal_decoder widths must be multiples of 8, got {self.width} and {self.inner_width}"
            )


class CausalDecoder(nn.Module):
    """Blends the tokenizer's picture of a frame with the expected one."""

    def __init__(self, config: CausalDecoderConfig, *, feature_channels: int) -> None:
        """Build the network; untrained, it blends by what was seen before and corrects nothing."""
        super().__init__()
        cell = CELL_PX**2
        self.stem = Convolution(3 * 3 * cell + feature_channels + NUM_HINTS, config.width, 3, padding=1)
        self.first = CellBlock(config.width)
        self.down = Convolution(config.width, config.inner_width, 3, stride=2, padding=1)
        self.inner = CellBlock(config.inner_width)
        self.up = Convolution(config.inner_width, config.width, 1)
        self.last = CellBlock(config.width)
        self.out = Convolution(config.width, 4 * cell, 3, padding=1)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, drawn_BCHW: Tensor, expected: Expected, road_BVHW: Tensor) -> Tensor:
        """Return frames (B, 3, H, W), not clipped.

        Args:
            drawn_BCHW: the tokenizer's picture of the tokens, in [-1, 1].
            expected: what the motion field expects.
            road_BVHW: what a map says is seen, at a stride of CELL_PX.
        """
        warped_BCHW = expected.compensated.frames_BCHW
        is_seen_B1HW = expected.compensated.is_seen_BHW.float().unsqueeze(1)
        dtype = self.stem.weight.dtype
        difference_BCHW = (warped_BCHW - drawn_BCHW).abs().to(dtype) * 2
        cells = [
            unshuffled(warped_BCHW.to(dtype)),
            unshuffled(drawn_BCHW.to(dtype)),
            unshuffled(difference_BCHW),
            expected.features_BFHW.to(dtype),
            functional.avg_pool2d(is_seen_B1HW, CELL_PX).to(dtype),
            road_BVHW.to(dtype),
        ]
        x = self.first(self.stem(joined(cells)))
        inner = self.up(self.inner(self.down(functional.silu(x))))
        x = self.last(x + functional.interpolate(inner, scale_factor=2))
        out_B4HW = functional.pixel_shuffle(self.out(functional.silu(x)).float(), CELL_PX)
        prior = UNSEEN_LOGIT + (SEEN_LOGIT - UNSEEN_LOGIT) * is_seen_B1HW
        share = torch.sigmoid(2 * out_B4HW[:, :1] + prior)
        return torch.lerp(drawn_BCHW, warped_BCHW, share) + 0.5 * out_B4HW[:, 1:]
