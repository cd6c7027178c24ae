"""Drawings that join: what surrounds them without a seam, and another drawing of the same clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
MAX_SHIFT = (
    48  # levels: what differs more across the border is another thing, not a shade, and is not carried on
)
CHOICE_SIGMA_PX = 4.0  # places this near to each other take the same of two drawings
CHOICE_SHARPNESS = 2.0  # 1: between the two as the mean is; more: rather the one or the other


def joined(frames: Clip, drawn: Clip, mask: NDArray[np.bool_]) -> Clip:
    """Return frames with what was drawn under a mask, in the shades of what surrounds it.

    By how much the drawn pixels miss the given ones just outside of the mask is carried on across it: a membrane
    (Perez et al., 2003, Poisson Image Editing, section 2), whose value in each pixel is the mean of its neighbours'.

    Args:
        frames: (T, H, W, 3); all pixels outside the mask come back as they are.
        drawn: (T, H, W, 3), the same frames drawn anew, as a whole.
        mask: (T, H, W). Where it covers a whole frame nothing is known, and the frame is as drawn.
    """
    result = np.where(mask[..., None], drawn, frames)
    frames_of_mask: dict[bytes, list[int]] = {}
    for t, mask_HW in enumerate(mask):
        if mask_HW.any() and not mask_HW.all():
            frames_of_mask.setdefault(mask_HW.tobytes(), []).append(t)
    for times in frames_of_mask.values():
        mask_HW = mask[times[0]]
        missed = np.clip(frames[times].astype(np.float64) - drawn[times], -MAX_SHIFT, MAX_SHIFT)
        under = drawn[times][:, mask_HW] + _membrane(missed, mask_HW)
        for t, pixels in zip(times, np.clip(np.round(under), 0, 255).astype(np.uint8), strict=True):
            result[t][mask_HW] = pixels
    return result


def _membrane(around: FloatArray, mask_HW: NDArray[np.bool_]) -> FloatArray:
    """Return values (T, N, 3) of the N masked pixels that continue those outside of the mask; borders are free."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    rows, columns = np.nonzero(mask_HW)
    count = len(rows)
    number_HW = np.full(mask_HW.shape, -1)
    number_HW[mask_HW] = np.arange(count)
    own, other, num_neighbours = [], [], np.zeros(count)
    known = np.zeros((count, len(around), 3))
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        row, column = rows + down, columns + right
        inside = (row >= 0) & (row < mask_HW.shape[0]) & (column >= 0) & (column < mask_HW.shape[1])
        num_neighbours += inside
        at, row, column = np.flatnonzero(inside), row[inside], column[inside]
        neighbour = number_HW[row, column]
        is_hidden = neighbour >= 0
        own.append(at[is_hidden])
        other.append(neighbour[is_hidden])
        known[at[~is_hidden]] += around[:, row[~is_hidden], column[~is_hidden]].swapaxes(0, 1)
    places = (np.concatenate([*own, np.arange(count)]), np.concatenate([*other, np.arange(count)]))
    values = np.concatenate([-np.ones(sum(map(len, own))), num_neighbours])
    laplacian = coo_matrix((values, places), shape=(count, count)).tocsc()
    solved: FloatArray = splu(laplacian).solve(known.reshape(count, -1))
    return solved.reshape(known.shape).swapaxes(0, 1)


def reconciled(first: Clip, second: Clip, mean: Clip) -> Clip:
    """Return one clip of two drawings of the same, which may show different things in a place.

    The picture of a mean of codes tells which of the two fits better, but where they disagree it may be in colours that
    neither has. Each pixel of the result therefore lies on the straight line between the colours of the two, rather at
    the end that the mean is nearer to over a few pixels around (``CHOICE_SIGMA_PX``), among which those count more
    where the two differ more. Each frame is taken by itself.

    Args:
        first: (T, H, W, 3).
        second: (T, H, W, 3).
        mean: (T, H, W, 3), the picture of the mean of the codes of the two.
    """
    from scipy.ndimage import gaussian_filter

    from_first = first.astype(np.float64)
    across = second - from_first
    sigma = (0, CHOICE_SIGMA_PX, CHOICE_SIGMA_PX)  # over each frame by itself
    along = gaussian_filter(((mean - from_first) * across).sum(-1), sigma)
    length = gaussian_filter(np.square(across).sum(-1), sigma)
    share = np.divide(along, length, out=np.full_like(along, 0.5), where=length > 0)
    share = np.clip(0.5 + CHOICE_SHARPNESS * (share - 0.5), 0, 1)
    return np.round(from_first + share[..., None] * across).astype(np.uint8)
