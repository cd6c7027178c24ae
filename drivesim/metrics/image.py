"""How alike pictures are: PSNR and SSIM per frame; LPIPS, FID and FVD through a file that the user names.

Nothing here downloads. The learned ones need a trained network and their numbers mean something only
together with it; so the file is an argument and its name travels with the result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from drivesim.errors import InputError
from drivesim.torchvision_guard import ensure_torchvision

FloatArray = NDArray[np.float64]
Images = NDArray[np.uint8]


def mse(predicted: Images, target: Images) -> FloatArray:
    """Return the mean squared error per frame on the 0..255 scale: (..., H, W, 3) uint8 -> (...)."""
    if predicted.shape != target.shape or predicted.shape[-1] != 3:
        raise ValueError(
            f"two stacks of RGB frames of one shape are needed, got {predicted.shape}, {target.shape}"
        )
    if predicted.dtype != np.uint8 or target.dtype != np.uint8:
        raise ValueError(f"frames are 8-bit (uint8), got {predicted.dtype} and {target.dtype}")
    difference = predicted.astype(np.float32) - target.astype(np.float32)
    return np.asarray(np.square(difference).mean(axis=(-3, -2, -1), dtype=np.float64))


def psnr_from_mse(error: FloatArray | float) -> FloatArray:
    """Return the peak signal-to-noise ratio in dB of 8-bit pictures; infinite where the error is zero."""
    with np.errstate(divide="ignore"):
        return np.asarray(10.0 * np.log10(255.0**2 / np.asarray(error, dtype=np.float64)))


def psnr(predicted: Images, target: Images) -> FloatArray:
    """Return PSNR in dB per frame, 8-bit RGB: (..., H, W, 3) uint8 -> (...). Equal frames give infinity."""
    return psnr_from_mse(mse(predicted, target))


def ssim(predicted: Images, target: Images) -> FloatArray:
    """Return SSIM (11 px Gaussian window, mean over RGB) per frame: (N, H, W, 3) uint8 -> (N,)."""
    ensure_torchvision()
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(
        _as_bchw(predicted), _as_bchw(target), data_range=255.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return np.asarray(value.reshape(-1).double().numpy())


def _as_bchw(frames: Images) -> Tensor:
    return rearrange(torch.from_numpy(np.array(frames)), "B H W C -> B C H W").float()


class Extractor(Enum):
    """The three feature networks, each a TorchScript file in the form the StyleGAN authors published."""

    LPIPS = "lpips"  # vgg16.pt: squared feature distance is LPIPS
    FID = "fid"  # inception-2015-12-05.pt: 2048 features a picture
    FVD = "fvd"  # i3d_torchscript.pt: 400 features a clip


_FILE_HINTS = {
    Extractor.LPIPS: "vgg16.pt",
    Extractor.FID: "inception-2015-12-05.pt",
    Extractor.FVD: "i3d_torchscript.pt",
}
_OPTIONS: dict[Extractor, dict[str, bool]] = {
    Extractor.LPIPS: {"resize_images": False, "return_lpips": True},
    Extractor.FID: {"return_features": True},
    Extractor.FVD: {"rescale": True, "resize": True, "return_features": True},
}


@dataclass(kw_only=True, slots=True)
class FeatureNetwork:
    """A feature network loaded from a file; its name is printed beside every number it makes."""

    kind: Extractor
    name: str
    module: torch.jit.ScriptModule

    @torch.no_grad()
    def features(self, stack: Images) -> FloatArray:
        """Return (N, D) features of (N, H, W, 3) pictures, or for FVD of (N, T, H, W, 3) clips."""
        pattern = "N T H W C -> N C T H W" if self.kind is Extractor.FVD else "N H W C -> N C H W"
        if stack.ndim != len(pattern.split("->")[0].split()):
            raise ValueError(
                f"{self.kind.value} reads arrays of axes {pattern.split('->')[0]}, got {stack.shape}"
            )
        batch = rearrange(torch.from_numpy(np.array(stack)), pattern).float()
        found = self.module(batch, **_OPTIONS[self.kind])
        return np.asarray(found.flatten(1).double().numpy())


def load_feature_network(kind: Extractor, weights: Path | str | None) -> FeatureNetwork:
    """Open the feature network of a learned metric.

    Args:
        kind: Which metric asks.
        weights: A TorchScript file on this machine; there is no default and nothing is downloaded.

    Raises:
        InputError: no file was named, it is missing, or it is not TorchScript.
    """
    hint = f"a TorchScript file such as {_FILE_HINTS[kind]}"
    if weights is None:
        raise InputError(
            f"{kind.value} needs a feature network: name {hint}; drivesim neither ships nor fetches one"
        )
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"no feature network for {kind.value} at {path}: name {hint}")
    try:
        with (
            warnings.catch_warnings()
        ):  # TorchScript is old, but it is the form these networks are published in
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a feature network for {kind.value}: name {hint}") from error
    return FeatureNetwork(kind=kind, name=path.name, module=module)


def lpips(predicted: Images, target: Images, network: FeatureNetwork) -> FloatArray:
    """Return the LPIPS distance per frame, (N, H, W, 3) uint8 -> (N,); lower is more alike."""
    difference = network.features(predicted) - network.features(target)
    return np.asarray(np.square(difference).sum(axis=-1))


@dataclass(kw_only=True, slots=True)
class FrechetResult:
    """FID or FVD with everything that the number depends on."""

    value: float
    extractor: str
    num_predicted: int
    num_target: int
    num_frames: int  # frames per item: 1 for FID
    height_px: int
    width_px: int


def frechet(predicted: Iterable[Images], target: Iterable[Images], network: FeatureNetwork) -> FrechetResult:
    """Return FID (batches of pictures) or FVD (batches of clips) between two sets.

    Args:
        predicted: Batches (N, H, W, 3) or (N, T, H, W, 3) uint8, generated frames without condition frames.
        target: The same of recorded frames.
        network: From `load_feature_network`.
    """
    shape: tuple[int, ...] = ()
    features = []
    for batches in (predicted, target):
        rows = []
        for batch in batches:
            rows.append(network.features(batch))
            shape = batch.shape
        if not rows or sum(len(row) for row in rows) < 2:
            raise ValueError("a Frechet distance needs at least two items on each side")
        features.append(np.concatenate(rows))
    return FrechetResult(
        value=frechet_distance(features[0], features[1]),
        extractor=network.name,
        num_predicted=len(features[0]),
        num_target=len(features[1]),
        num_frames=shape[1] if len(shape) == 5 else 1,
        height_px=shape[-3],
        width_px=shape[-2],
    )


def frechet_distance(a: FloatArray, b: FloatArray) -> float:
    """Return the Frechet distance of two sets of features (N, D), (M, D), each taken as a Gaussian."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    covariance_a, covariance_b = np.atleast_2d(covariance_a), np.atleast_2d(covariance_b)
    eigenvalues = np.linalg.eigvals(covariance_a @ covariance_b).real
    cross = np.sqrt(np.clip(eigenvalues, 0.0, None)).sum()
    gap = a.mean(axis=0) - b.mean(axis=0)
    return float(gap @ gap + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * cross)
