"""Picture fidelity: imagined against recorded frames, beside repeat-last and the tokenizer's ceiling.

Letters: `B` starts, `T` steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import pack, unpack
from numpy.typing import NDArray

from benchmarks.report import Report
from benchmarks.statistics import bootstrap_mean, bootstrap_steps
from drivesim.errors import InputError
from drivesim.metrics.image import (
    Extractor,
    FeatureNetwork,
    frechet,
    load_feature_network,
    lpips,
    psnr,
    ssim,
)
from drivesim.tokenizer.quantizer import codebook_usage
from drivesim.tokenizer.vqgan import VQGAN, normalized, to_uint8

Images = NDArray[np.uint8]
FloatArray = NDArray[np.float64]
Metric = Callable[[Images, Images], FloatArray]
"""From two stacks (N, H, W, 3) of frames to (N,) numbers."""

TOKENIZER_BATCH = 16
LPIPS_BATCH = 4  # its features are as large as the pictures
EXACT_PSNR_DB = 100.0


@dataclass(kw_only=True, slots=True)
class Clips:
    """What is compared: all (B, T, H, W, 3), T steps after each start."""

    target: Images  # recorded
    imagined: Images  # under the recorded actions
    randomly_driven: Images  # imagined under random actions
    tokenized: Images  # recorded, as the tokenizer gives them back
    last: Images  # (B, H, W, 3): each start's own frame
    groups: list[int]  # (B,) scene of each start
    unmapped: Images | None = None  # imagined under the recorded actions, but without a map

    @property
    def repeated(self) -> Images:
        """Return each start's last recorded frame, T times over."""
        return np.broadcast_to(self.last[:, None], self.target.shape)

    @property
    def compared_worlds(self) -> dict[str, Images]:
        """Return the model and its two reference lines, by the prefix under which they are reported."""
        return {"": self.imagined, "repeat_": self.repeated, "ceiling_": self.tokenized}


@dataclass(kw_only=True, slots=True)
class Tokenized:
    """Frames after the tokenizer, and how much of the codebook they took."""

    frames: Images  # (..., H, W, 3)
    codebook_usage: float  # share of the codes used at least once
    num_tokens: int


@torch.no_grad()
def tokenized(tokenizer: VQGAN, frames: Images) -> Tokenized:
    """Return (..., H, W, 3) uint8 frames, one at least, as the tokenizer gives them back."""
    flat, leading = pack([frames], "* h w c")
    outputs, ids = [], []
    for first in range(0, len(flat), TOKENIZER_BATCH):
        batch = torch.from_numpy(np.array(flat[first : first + TOKENIZER_BATCH]))
        token_ids_BS = tokenizer.encode(normalized(batch))
        ids.append(token_ids_BS.flatten())
        outputs.append(to_uint8(tokenizer.decode(token_ids_BS)).numpy())
    used = torch.cat(ids)
    share = codebook_usage(used, tokenizer.codebook_size)
    (shown,) = unpack(np.concatenate(outputs), leading, "* h w c")
    return Tokenized(frames=shown, codebook_usage=share, num_tokens=len(used))


def finite_psnr(predicted: Images, target: Images) -> FloatArray:
    """Return PSNR in dB per frame, at most 100 (equal frames)."""
    return np.minimum(psnr(predicted, target), EXACT_PSNR_DB)


def frame_metrics(networks: Mapping[Extractor, FeatureNetwork]) -> dict[str, Metric]:
    """Return what compares frame with frame, by name: PSNR, SSIM and, where its network was named, LPIPS."""
    metrics: dict[str, Metric] = {"psnr_db": finite_psnr, "ssim": ssim}
    if (network := networks.get(Extractor.LPIPS)) is not None:
        metrics["lpips"] = partial(_lpips, network=network)
    return metrics


def over_steps(metric: Metric, shown: Images, target: Images) -> FloatArray:
    """Return (B, T) numbers of a metric between two stacks of clips (B, T, H, W, 3)."""
    steps = range(target.shape[1])
    return np.stack([metric(shown[:, step], target[:, step]) for step in steps], axis=1)


def add_picture_rows(report: Report, clips: Clips, ceiling: Tokenized, horizons: Sequence[int]) -> None:
    """Add PSNR and SSIM with their reference lines, gain over repeat-last and the effect of the actions.

    The mean of each ceiling and the use of codes come first: what a picture drawn from tokens alone can be.
    """
    values = {name: _compared(metric, clips) for name, metric in frame_metrics({}).items()}
    for name, by_prefix in values.items():
        quality_BT = by_prefix["ceiling_"]
        groups = np.repeat(clips.groups, quality_BT.shape[1]).tolist()
        mean = bootstrap_mean(quality_BT.ravel(), groups)
        report.add_estimate(f"tokenizer_{name}", mean, note="mean over all frames")
    note = f"share of codes in {ceiling.num_tokens:,} tokens"
    report.add("codebook_usage", ceiling.codebook_usage, note=note)
    for name, by_prefix in values.items():
        _add_compared(report, name, by_prefix, clips, horizons)
    psnr_db = values["psnr_db"]
    random_db = over_steps(finite_psnr, clips.randomly_driven, clips.target)
    differences = [
        ("psnr_gain_over_repeat_db", psnr_db[""] - psnr_db["repeat_"], "against the recorded last frame"),
        ("delta_psnr_db", psnr_db[""] - random_db, "true actions minus random ones"),
    ]
    if clips.unmapped is not None:
        gain_db = over_steps(finite_psnr, clips.unmapped, clips.target) - psnr_db["repeat_"]
        differences.insert(1, ("psnr_gain_over_repeat_db_without_map", gain_db, "the model shown no map"))
    for name, difference, note in differences:
        estimates = bootstrap_steps(difference, clips.groups)
        report.add_series(name, estimates, named_steps=horizons, note=note)


def _compared(metric: Metric, clips: Clips) -> dict[str, FloatArray]:
    """Return a metric's (B, T) numbers for the model and both reference lines, by prefix."""
    return {
        prefix: over_steps(metric, shown, clips.target) for prefix, shown in clips.compared_worlds.items()
    }


def _add_compared(
    report: Report, name: str, values: Mapping[str, FloatArray], clips: Clips, horizons: Sequence[int]
) -> None:
    for prefix, values_BT in values.items():
        estimates = bootstrap_steps(values_BT, clips.groups)
        report.add_series(f"{prefix}{name}", estimates, named_steps=horizons)


# ------------------------------------------------------------------------------------- learned metrics


def open_networks(
    paths: Mapping[Extractor, Path | None], *, num_starts: int, horizon: int
) -> dict[Extractor, FeatureNetwork]:
    """Load the feature networks that were named, and try each once before anything is measured.

    Args:
        paths: By metric; None where no file was named.
        num_starts: How many clips will be compared.
        horizon: Of how many frames each.

    Raises:
        InputError: a file that is missing, not TorchScript, or not of the kind that the metric needs; clips too few or
            too short for it.
    """
    networks = {kind: load_feature_network(kind, path) for kind, path in paths.items() if path is not None}
    check_spread(networks, num_starts=num_starts, horizon=horizon)
    for kind, network in networks.items():
        is_of_clips = kind is Extractor.FVD
        shape = (2, horizon, 128, 224, 3) if is_of_clips else (2, 128, 224, 3)
        try:
            network.features(np.zeros(shape, dtype=np.uint8))
        except (RuntimeError, TypeError) as error:
            frames, remedy = (
                (f" on clips of {horizon} frames", ", or a longer --horizon") if is_of_clips else ("", "")
            )
            raise InputError(
                f"{network.name} cannot serve as the {kind.name} network{frames} ({str(error).splitlines()[0]}); "
                f"name the file that --{kind.value} asks for{remedy}"
            ) from error
    return networks


def check_spread(kinds: Iterable[Extractor], *, num_starts: int, horizon: int) -> None:
    """Refuse FID of a single picture and FVD of a single clip: both compare how pictures or clips spread.

    Raises:
        InputError: there are fewer than two of what is compared.
    """
    counts = {Extractor.FID: num_starts * horizon, Extractor.FVD: num_starts}
    for kind in kinds:
        if counts.get(kind, 2) < 2:
            what = "clips" if kind is Extractor.FVD else "pictures"
            raise InputError(
                f"--{kind.value} needs at least two {what} to compare, got {counts[kind]}; name more --starts, scenes "
                f"that have more of them, or leave --{kind.value} out"
            )


def learned_facts(networks: Mapping[Extractor, FeatureNetwork]) -> dict[str, str]:
    """Say for LPIPS, FID and FVD which file measures them, or that none was named."""
    return {
        f"{kind.value}_network": networks[kind].name
        if kind in networks
        else f"none named (--{kind.value} FILE), not measured"
        for kind in Extractor
    }


def add_learned_rows(
    report: Report, clips: Clips, horizons: Sequence[int], networks: Mapping[Extractor, FeatureNetwork]
) -> None:
    """Add LPIPS, FID and FVD for those whose feature network was named."""
    if (metric := frame_metrics(networks).get("lpips")) is not None:
        _add_compared(report, "lpips", _compared(metric, clips), clips, horizons)
    for kind in (Extractor.FID, Extractor.FVD):
        if (network := networks.get(kind)) is None:
            continue
        batches = [list(clips.imagined), list(clips.target)]
        if kind is Extractor.FVD:
            batches = [[clip[None] for clip in side] for side in batches]
        result = frechet(batches[0], batches[1], network)
        size = f"{result.num_frames} frames of {result.height_px}x{result.width_px}"
        report.add(kind.value, result.value, note=f"{result.extractor}, N {result.num_predicted}, {size}")


def _lpips(predicted: Images, target: Images, *, network: FeatureNetwork) -> FloatArray:
    chunks = range(0, len(target), LPIPS_BATCH)
    distances = [
        lpips(predicted[first : first + LPIPS_BATCH], target[first : first + LPIPS_BATCH], network)
        for first in chunks
    ]
    return np.concatenate(distances)
