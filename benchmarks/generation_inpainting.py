"""Inpainting against the truth, and against ways of filling a rectangle without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.generation_cases import InpaintingCase, Mask
from benchmarks.generation_pipeline import GenerationPipeline, tracked
from benchmarks.pictures import EXACT_PSNR_DB
from benchmarks.report import Report
from benchmarks.statistics import bootstrap_mean
from drivesim.general_world.content import FloatArray, Image
from drivesim.metrics.image import psnr_from_mse


@dataclass(kw_only=True, slots=True)
class Inpainting:
    """One clip with a rectangle generated anew."""

    case: InpaintingCase
    true: Image  # (T, H, W, 3)
    given: Image  # with the rectangle in the mean colour: the baseline, and what the model gets
    result: Image
    psnr_db: dict[str, float]  # inside the rectangle, by way of filling

    @property
    def is_outside_identical(self) -> bool:
        """Tell whether every pixel outside the rectangle is the true one."""
        is_kept = ~self.case.mask
        return bool((self.result[:, is_kept] == self.true[:, is_kept]).all())


def generate_inpaintings(pipeline: GenerationPipeline, cases: Sequence[InpaintingCase]) -> list[Inpainting]:
    """Fill in every rectangle, under the true caption."""
    return [_inpainting(pipeline, case) for case in tracked("inpainting", cases)]


def _inpainting(pipeline: GenerationPipeline, case: InpaintingCase) -> Inpainting:
    true = pipeline.true_clip(case.scene)
    given = filled_with_mean(true, case.mask)
    result = pipeline.inpaint(given, case.mask, case.prompt, case.seed)
    fillings = {
        "model": result,
        "mean": given,
        "repeat": filled_from_border(true, case.mask),
        "tokenizer": pipeline.reconstruct(true),
    }
    psnr_db = {name: masked_psnr_db(frames, true, case.mask) for name, frames in fillings.items()}
    return Inpainting(case=case, true=true, given=given, result=result, psnr_db=psnr_db)


def add_inpainting_rows(report: Report, inpaintings: Sequence[Inpainting]) -> None:
    """Add the PSNR inside the rectangles, the gains over fillings without a model, and whether all else was kept."""
    psnr_db = {name: np.array([one.psnr_db[name] for one in inpaintings]) for name in inpaintings[0].psnr_db}
    groups = list(range(len(inpaintings)))
    rows = [
        ("inpainting_psnr_db", psnr_db["model"], "inside the rectangle, the true caption as the prompt"),
        ("inpainting_psnr_db_tokenizer", psnr_db["tokenizer"], "the true clip after the tokenizer"),
        (
            "inpainting_gain_over_mean_db",
            psnr_db["model"] - psnr_db["mean"],
            "against the mean colour outside",
        ),
        (
            "inpainting_gain_over_repeat_db",
            psnr_db["model"] - psnr_db["repeat"],
            "against the pixels at the border, drawn on inwards",
        ),
    ]
    for name, values, note in rows:
        report.add_estimate(name, bootstrap_mean(values, groups), note=note)
    report.facts["inpainting_outside_identical"] = all(one.is_outside_identical for one in inpaintings)


# ----------------------------------------------------------------------------------------------- arithmetic


def masked_psnr_db(predicted: Image, target: Image, mask: Mask) -> float:
    """Return the PSNR of the pixels (T, H, W, 3) under a mask (H, W), over all frames; at most 100 dB."""
    difference = predicted[:, mask].astype(np.float64) - target[:, mask].astype(np.float64)
    return min(float(psnr_from_mse(np.square(difference).mean())), EXACT_PSNR_DB)


def filled_with_mean(frames: Image, mask: Mask) -> Image:
    """Return a copy with the mean colour of all pixels outside the mask under it."""
    filled = frames.copy()
    filled[:, mask] = np.round(frames[:, ~mask].mean(axis=(0, 1))).astype(np.uint8)
    return filled


def filled_from_border(frames: Image, mask: Mask) -> Image:
    """Return a copy whose rectangle is drawn on from the pixels just outside of it.

    Every pixel takes those at the four ends of its row and column, the nearer the more; sides at the frame's edge
    have none.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    total = np.zeros((len(frames), len(rows), len(columns), 3))
    weights = np.zeros((len(rows), len(columns), 1))
    down, across = np.arange(1, len(rows) + 1), np.arange(1, len(columns) + 1)
    sides = [
        (top > 0, frames[:, top - 1, None, left:right], down[:, None]),
        (bottom < mask.shape[0], frames[:, bottom % mask.shape[0], None, left:right], down[::-1, None]),
        (left > 0, frames[:, top:bottom, None, left - 1], across[None]),
        (right < mask.shape[1], frames[:, top:bottom, None, right % mask.shape[1]], across[None, ::-1]),
    ]
    for is_there, border, distance in sides:
        if is_there:
            weight: FloatArray = (
                1.0 / np.broadcast_to(distance, mask[top:bottom, left:right].shape)[..., None]
            )
            total += weight * border
            weights += weight
    filled = frames.copy()
    filled[:, top:bottom, left:right] = np.round(total / weights).astype(np.uint8)
    return filled
