"""Picture fidelity: imagined against recorded frames, beside repeat-last and the tokenizer's ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Report
from benchmarks.statistics import bootstrap_mean
from drivesim.metrics.image import Extractor, frechet, load_feature_network, lpips, psnr, ssim
from drivesim.tokenizer.quantizer import codebook_usage
from drivesim.tokenizer.vqgan import VQGAN, normalized, to_uint8

Images = NDArray[np.uint8]
TOKENIZER_BATCH = 16


@dataclass(kw_only=True, slots=True)
class Clips:
    """What is compared: all (B, T, H, W, 3), T steps after each start."""

    target: Images  # recorded
    imagined: Images  # under the recorded actions
    randomly_driven: Images  # imagined under random actions
    last: Images  # (B, H, W, 3): each start's own frame
    groups: list[int]  # (B,) scene of each start

    @property
    def repeated(self) -> Images:
        """Return each start's last recorded frame, T times over."""
        return np.broadcast_to(self.last[:, None], self.target.shape)


@dataclass(kw_only=True, slots=True)
class Tokenized:
    """Frames after the tokenizer, and how much of the codebook they took."""

    frames: Images  # (N, H, W, 3)
    codebook_usage: float  # share of the codes used at least once
    num_tokens: int


@torch.no_grad()
def tokenized(tokenizer: VQGAN, frames: Images) -> Tokenized:
    """Return (N, H, W, 3) uint8 frames as the tokenizer gives them back."""
    outputs, ids = [], []
    for first in range(0, len(frames), TOKENIZER_BATCH):
        batch = torch.from_numpy(np.array(frames[first : first + TOKENIZER_BATCH]))
        token_ids_BS = tokenizer.encode(normalized(batch))
        ids.append(token_ids_BS.flatten())
        outputs.append(to_uint8(tokenizer.decode(token_ids_BS)).numpy())
    used = torch.cat(ids)
    share = codebook_usage(used, tokenizer.codebook_size)
    return Tokenized(frames=np.concatenate(outputs), codebook_usage=share, num_tokens=len(used))


def add_tokenizer_rows(report: Report, recorded: Images, result: Tokenized, groups: Sequence[int]) -> None:
    """Add the tokenizer's reconstruction quality, which no imagined frame can pass, and its use of codes."""
    quality = psnr(result.frames, recorded)
    report.add_estimate("tokenizer_psnr_db", bootstrap_mean(quality, groups), note="ceiling of all below")
    report.add_estimate("tokenizer_ssim", bootstrap_mean(ssim(result.frames, recorded), groups))
    note = f"share of codes in {result.num_tokens:,} tokens"
    report.add("codebook_usage", result.codebook_usage, note=note)


def add_picture_rows(report: Report, clips: Clips, horizons: Sequence[int]) -> None:
    """Add PSNR, SSIM, gain over repeat-last and the effect of true against random actions, per horizon."""
    for horizon in horizons:
        step = horizon - 1
        target = clips.target[:, step]
        imagined = psnr(clips.imagined[:, step], target)
        repeated = psnr(clips.repeated[:, step], target)
        random = psnr(clips.randomly_driven[:, step], target)
        groups = clips.groups
        report.add_estimate("psnr_db", bootstrap_mean(imagined, groups), key=horizon)
        report.add_estimate("repeat_psnr_db", bootstrap_mean(repeated, groups), key=horizon)
        gain = bootstrap_mean(imagined - repeated, groups)
        report.add_estimate(
            "psnr_gain_over_repeat_db", gain, key=horizon, note="against the recorded last frame"
        )
        note = "true actions minus random ones"
        report.add_estimate(
            "delta_psnr_db", bootstrap_mean(imagined - random, groups), key=horizon, note=note
        )
        report.add_estimate(
            "ssim", bootstrap_mean(ssim(clips.imagined[:, step], target), groups), key=horizon
        )
        similarity = ssim(clips.repeated[:, step], target)
        report.add_estimate("repeat_ssim", bootstrap_mean(similarity, groups), key=horizon)


def add_learned_rows(
    report: Report, clips: Clips, horizons: Sequence[int], weights: dict[Extractor, Path | None]
) -> None:
    """Add LPIPS, FID and FVD for those whose feature network was named."""
    if (path := weights.get(Extractor.LPIPS)) is not None:
        network = load_feature_network(Extractor.LPIPS, path)
        for horizon in horizons:
            distance = lpips(clips.imagined[:, horizon - 1], clips.target[:, horizon - 1], network)
            estimate = bootstrap_mean(distance, clips.groups)
            report.add_estimate("lpips", estimate, key=horizon, note=network.name)
    for kind in (Extractor.FID, Extractor.FVD):
        if (path := weights.get(kind)) is None:
            continue
        network = load_feature_network(kind, path)
        batches = [list(clips.imagined), list(clips.target)]
        if kind is Extractor.FVD:
            batches = [[clip[None] for clip in side] for side in batches]
        result = frechet(batches[0], batches[1], network)
        size = f"{result.num_frames} frames of {result.height_px}x{result.width_px}"
        report.add(kind.value, result.value, note=f"{result.extractor}, N {result.num_predicted}, {size}")
