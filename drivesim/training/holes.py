"""Training as inpainting sees a clip: around a hole, tokens of frames in which what surrounds it is drawn on across it.

A tokenizer's view is wide, so that tokens beside a hole in true frames tell of what is under it. A model that has seen
only those relies on them; where it is used they are not to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.vqgan import normalized
from drivesim.video import drawn_across
from drivesim.world_model.masking import rectangles

MIN_SIDE, MAX_SIDE = 0.2, 0.65  # of a hole, in shares of the frame's


def draw_rectangles(
    about_B4: Tensor, size: tuple[int, int], uniform: Callable[[Sequence[int]], Tensor]
) -> NDArray[np.bool_]:
    """Draw a rectangle of pixels per row: over the middle of a box where there is one, else anywhere.

    Args:
        about_B4: left, top, right, bottom of the boxes in shares of the frame; NaN for none.
        size: height and width of the frames in pixels.
        uniform: returns numbers from [0, 1) of a shape.

    Returns:
        (B, H, W), True in the rectangle.
    """
    spans_px = []
    draws_B22 = uniform((len(about_B4), 2, 2))
    for axis, (low, high) in enumerate(((1, 3), (0, 2))):
        length_B, place_B = draws_B22[:, axis].unbind(-1)
        length_B = MIN_SIDE + (MAX_SIDE - MIN_SIDE) * length_B
        middle_B = about_B4[:, [low, high]].mean(-1)
        about_B = (middle_B - (0.15 + 0.7 * place_B) * length_B).clamp_min(0).minimum(1 - length_B)
        first_B = torch.where(middle_B.isfinite(), about_B, place_B * (1 - length_B))
        ends_B2 = (
            torch.stack([first_B, first_B + length_B], dim=-1) * size[axis] - 0.5
        )  # pixels by their middle
        spans_px.append((ends_B2[:, :1], ends_B2[:, 1:]))
    return rectangles(size, spans_px).unflatten(1, size).numpy()


def holed_rows(
    frames: Sequence[NDArray[np.uint8]],
    rectangles_BHW: NDArray[np.bool_],
    hole_BS: Tensor,
    is_holed_B: Tensor,
) -> dict[str, Tensor]:
    """Return what :func:`seen_around_holes` needs of a batch.

    Args:
        frames: of every row, (T, H, W, 3); those without a hole are not read.
        rectangles_BHW: the holes, the same in all frames of a row.
        hole_BS: the tokens that they hide.
        is_holed_B: which rows have one.
    """
    rows = is_holed_B.nonzero().flatten()
    filled = []
    for row in rows.tolist():
        shown = np.array(frames[row])
        mask_THW = np.broadcast_to(rectangles_BHW[row], shown.shape[:3])
        filled.append(torch.from_numpy(drawn_across(shown, mask_THW)))
    return {"holed_rows": rows, "holed_frames": torch.stack(filled), "hole_tokens": hole_BS[rows]}


@torch.no_grad()
def seen_around_holes(batch: dict[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return a batch whose holed rows have, outside of their holes, the tokens of their filled frames."""
    rows, frames_RTHWC, hole_R1S = batch["holed_rows"], batch["holed_frames"], batch["hole_tokens"][:, None]
    true_RTS = batch["token_ids"][rows]
    filled_RTS = tokenizer.encode(normalized(frames_RTHWC.flatten(0, 1))).view(true_RTS.shape).to(true_RTS)
    seen = {"token_ids": torch.where(hole_R1S, true_RTS, filled_RTS)}
    if "context_ids" in batch:
        past_RTS = batch["context_ids"][rows]
        is_kept_RTS = hole_R1S | (past_RTS != true_RTS)  # noise stays
        seen["context_ids"] = torch.where(is_kept_RTS, past_RTS, filled_RTS)
    changed = {name: batch[name].index_copy(0, rows, ids_RTS) for name, ids_RTS in seen.items()}
    rest = {name: value for name, value in batch.items() if name not in _OF_HOLES}
    return rest | changed


_OF_HOLES = ("holed_rows", "holed_frames", "hole_tokens")
