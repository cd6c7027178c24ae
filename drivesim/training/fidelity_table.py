"""How true a world model is to held-out recordings: a table of gains, and a sheet of futures to look at.

Letters: `S` sides to steer to, `B` windows, `T` frames, `H W` pixels, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim import console
from drivesim.metrics.image import psnr
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image
from drivesim.tokenizer.vqgan import normalized, to_uint8
from drivesim.training.data import RecordedClips
from drivesim.training.fine_tuning_data import CONTEXT, HORIZON, is_moving, rows_of
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.video import contact_sheet, with_label
from drivesim.world_model.world_model import WorldModel

NAMED_STEPS = (1, 6, 12)
SHEET_STEPS = (2, 4, 6, 9, 12)
SHEET_STARTS = 3
BATCH = 16
MAX_YAW_RATE_RADPS = 0.3
MAX_LATERAL_MPS2 = 3.0
SIDES = {"left": 1.0, "straight": 0.0, "right": -1.0}
SHEET_SPEED_MPS = 6.0  # at least, so that a turn is seen


@dataclass(kw_only=True, slots=True)
class Fidelity:
    """Figures of one world model on held-out windows."""

    gain_db: dict[int, float]  # over repeating the last frame, by steps
    tokenizer_psnr_db: (
        float  # of recorded frames as the tokenizer gives them back: the ceiling of tokens alone
    )
    num_windows: int

    def as_dict(self) -> dict[str, float]:
        """Return flat figures by name."""
        gains = {f"gain_db_at_{step}": value for step, value in self.gain_db.items()}
        return gains | {"tokenizer_psnr_db": self.tokenizer_psnr_db}


def measure_fidelity(model: WorldModel, windows: RecordedClips, camera: Camera, *, label: str) -> Fidelity:
    """Imagine all windows in which the car moves; means over windows.

    Args:
        model: in evaluation mode.
        windows: of ``CONTEXT`` frames that are shown, and those to be imagined.
        camera: that took them.
        label: what the progress bar says.
    """
    moving = np.flatnonzero(is_moving(windows))
    gains: list[FloatArray] = []
    ceilings: list[FloatArray] = []
    with console.progress_bar(label, len(moving)) as bar:
        for first in range(0, len(moving), BATCH):
            batch = rows_of(windows, moving[first : first + BATCH], windows.frames_per_clip)
            check = OpenLoopCheck(batch, camera, num_context_frames=CONTEXT, horizon=HORIZON)
            with torch.random.fork_rng():
                torch.manual_seed(first)  # of the tokens that are drawn
                gains.append(check.gain_db(check.imagined(model)))
            ceilings.append(_ceiling_db(model, batch))
            bar.update(first + len(batch))
    gain_T = np.concatenate(gains).mean(axis=0)
    return Fidelity(
        gain_db={step: float(gain_T[step - 1]) for step in NAMED_STEPS if step <= len(gain_T)},
        tokenizer_psnr_db=float(np.concatenate(ceilings).mean()),
        num_windows=len(moving),
    )


@torch.no_grad()
def _ceiling_db(model: WorldModel, windows: RecordedClips) -> FloatArray:
    """Return the PSNR of the first and the last frame to be imagined, tokenized."""
    frames_BHWC = np.concatenate([windows.frames[:, CONTEXT], windows.frames[:, -1]])
    device = next(model.tokenizer.parameters()).device
    seen_BCHW = model.tokenizer.reconstruct(normalized(torch.from_numpy(frames_BHWC).to(device)))
    return psnr(to_uint8(seen_BCHW).cpu().numpy(), frames_BHWC)


def table_rows(before: Fidelity, after: Fidelity) -> list[tuple[str, float, float, float]]:
    """Return a row per figure: name, before, after, difference."""
    names = {f"gain_db_at_{step}": f"PSNR gain over repeat-last at {step}, dB" for step in NAMED_STEPS}
    names["tokenizer_psnr_db"] = "tokenizer's ceiling, PSNR in dB"
    first, last = before.as_dict(), after.as_dict()
    return [
        (words, first[name], last[name], last[name] - first[name])
        for name, words in names.items()
        if name in first
    ]


def futures_sheet(model: WorldModel, windows: RecordedClips, camera: Camera) -> Image:
    """Return imagined futures, three rows for each of a few held-out starts: steered left, straight and right."""
    moving = np.flatnonzero(is_moving(windows))
    chosen = moving[np.unique(np.linspace(0, len(moving) - 1, SHEET_STARTS).astype(int))]
    starts = rows_of(windows, chosen, CONTEXT)
    frames_SBTHWC = _futures(model, starts, camera)
    pictures: list[Image] = []
    for index in range(len(chosen)):
        for side, frames_BTHWC in zip(SIDES, frames_SBTHWC, strict=True):
            pictures.append(with_label(starts.frames[index, -1], f"start, {side}"))
            pictures += [with_label(frames_BTHWC[index, step - 1], f"{side} +{step}") for step in SHEET_STEPS]
    return contact_sheet(pictures, 1 + len(SHEET_STEPS))


@torch.no_grad()
def _futures(model: WorldModel, starts: RecordedClips, camera: Camera) -> NDArray[np.uint8]:
    """Return the frames (S, B, T, H, W, 3) that the model imagines while steering to each of the sides."""
    frames_BTHWC = torch.from_numpy(np.concatenate([starts.frames] * len(SIDES)))
    twist_BTA = torch.from_numpy(np.concatenate([starts.twist] * len(SIDES)))
    state = model.observe(frames_BTHWC, twist_BTA, camera)
    generator = torch.Generator().manual_seed(0)
    signs_B = torch.tensor(list(SIDES.values())).repeat_interleave(len(starts))
    twist_BA = _steered(twist_BTA[:, -1], signs_B)
    frames = []
    for _ in range(max(SHEET_STEPS)):
        step = model.imagine(state, twist_BA, generator=generator)
        state = step.state
        frames.append(step.frames_BHWC.numpy())
    flat = np.stack(frames, axis=1)
    return flat.reshape(len(SIDES), len(starts), *flat.shape[1:])


def _steered(twist_BA: Tensor, signs_B: Tensor) -> Tensor:
    """Return the present speed with as much yaw to one side as tyres would hold."""
    speed_B = twist_BA[:, 0].clamp_min(SHEET_SPEED_MPS)
    yaw_rate_B = signs_B * (MAX_LATERAL_MPS2 / speed_B).clamp_max(MAX_YAW_RATE_RADPS)
    return torch.stack([speed_B, yaw_rate_B], dim=-1)


def named_figures(before: Fidelity, after: Fidelity) -> dict[str, float]:
    """Return both models' figures under one name each."""
    pairs: Sequence[tuple[str, Fidelity]] = (("before", before), ("after", after))
    return {f"{name}_{when}": value for when, figures in pairs for name, value in figures.as_dict().items()}
