"""What a frame's tokens look like all in all, of which a recording can judge a rollout at any depth.

After some seconds nobody can say where a tree should stand, and a token that is asked for there makes fog. But how
light a frame is, in which colours, and how much is to be seen in it still follows from the place, the hour and the
weather. So each code is known by what it showed in recorded frames, and of the tokens that a model expects only the
mean over a band of rows is judged: moments are matched, positions are not.

Letters: `B` rollouts, `S` tokens, `K` codebook size, `U` numbers of a token's look, `N` bands of rows.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.training.picture_loss import edges
from drivesim.world_model.conditioning import LOOK_BANDS

TOKEN_LOOK_DIM = 7  # red, green, blue, their squares, and edges
_MEMORY = 0.9999  # from call to call: what was seen long ago counts less, or float32 could not count on
_PRIOR_COUNT = 1.0  # with how much of the mean over all codes a code begins


def token_look(frames_BCHW: Tensor, stride_px: int) -> Tensor:
    """Return the look (B, S, U) of each token's pixels: mean of colours in [-1, 1], of their squares, and of edges."""
    numbers_BUHW = torch.cat([frames_BCHW, frames_BCHW.square(), edges(frames_BCHW)], dim=1)
    return rearrange(functional.avg_pool2d(numbers_BUHW, stride_px), "b u h w -> b (h w) u")


class CodeLooks(nn.Module):
    """The look of each code, a running mean over recorded frames; part of a run's checkpoint, not of its weights."""

    def __init__(self, num_codes: int) -> None:
        """Begin with nothing seen."""
        super().__init__()
        self.counts_K: Tensor
        self.sums_KU: Tensor
        self.square_sums_U: Tensor
        self.register_buffer("counts_K", torch.zeros(num_codes))
        self.register_buffer("sums_KU", torch.zeros(num_codes, TOKEN_LOOK_DIM))
        self.register_buffer("square_sums_U", torch.zeros(TOKEN_LOOK_DIM))

    @torch.no_grad()
    def see(self, token_ids_BS: Tensor, look_BSU: Tensor) -> None:
        """Count recorded tokens (B, S) that look so (B, S, U)."""
        token_ids, looks = token_ids_BS.flatten(), look_BSU.flatten(0, 1).float()
        for buffer in (self.counts_K, self.sums_KU, self.square_sums_U):
            buffer.mul_(_MEMORY)
        self.counts_K.index_add_(0, token_ids, torch.ones_like(looks[:, 0]))
        self.sums_KU.index_add_(0, token_ids, looks)
        self.square_sums_U += looks.square().sum(0)

    def distance(self, logits_BSK: Tensor, token_ids_BS: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return how far the look that logits expect lies from that of recorded tokens, a scalar; 0 for those tokens.

        Args:
            logits_BSK: of the distribution that tokens are drawn from.
            token_ids_BS: of the recorded frames. What codes do not tell of these is not asked for.
            grid: tokens down and across.

        Returns:
            the mean over bands and numbers of the squared difference of means, in units of each number's variance.
        """
        total = self.counts_K.sum().clamp_min(1.0)
        mean_U = self.sums_KU.sum(0) / total
        variance_U = (self.square_sums_U / total - mean_U.square()).clamp_min(1e-6)
        means_KU = (self.sums_KU + _PRIOR_COUNT * mean_U) / (self.counts_K + _PRIOR_COUNT).unsqueeze(-1)
        with torch.autocast(logits_BSK.device.type, enabled=False):
            expected_BSU = logits_BSK.float().softmax(-1) @ means_KU
        difference_BNU = _bands(expected_BSU, grid) - _bands(means_KU[token_ids_BS], grid)
        return (difference_BNU.square() / variance_U).mean()


def _bands(look_BSU: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the means (B, N, U) over bands of rows: sky, what stands at the horizon, ground."""
    look_BHWU = rearrange(look_BSU.float(), "b (h w) u -> b h w u", h=grid[0], w=grid[1])
    parts = look_BHWU.tensor_split(min(LOOK_BANDS, grid[0]), dim=1)
    return torch.stack([part.mean(dim=(1, 2)) for part in parts], dim=1)
