from pathlib import Path

import numpy as np
import pytest
import torch

from drivesim.errors import InputError
from drivesim.metrics.image import (
    Extractor,
    frechet,
    frechet_distance,
    load_feature_network,
    lpips,
    mse,
    psnr,
    ssim,
)

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 200, size=(3, 32, 48, 3)).astype(np.uint8)


def test_psnr_of_a_known_error() -> None:
    assert psnr(FRAMES + np.uint8(10), FRAMES) == pytest.approx(20 * np.log10(255 / 10))


def test_psnr_is_per_frame_and_infinite_for_equal_frames() -> None:
    other = FRAMES.copy()
    other[1] += 5
    values = psnr(other, FRAMES)
    assert values.shape == (3,)
    assert np.isinf(values[[0, 2]]).all()
    assert np.isfinite(values[1])


def test_error_does_not_wrap_around_as_bytes_do() -> None:
    black, white = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 255, np.uint8)
    assert mse(black, white) == pytest.approx(255**2)


def test_images_of_other_type_or_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        mse(FRAMES.astype(np.float32), FRAMES.astype(np.float32))
    with pytest.raises(ValueError, match="one shape"):
        mse(FRAMES, FRAMES[:2])


def test_ssim_is_one_for_equal_frames_and_falls_with_noise() -> None:
    noisy = np.clip(FRAMES.astype(int) + RNG.integers(-60, 60, FRAMES.shape), 0, 255).astype(np.uint8)
    assert ssim(FRAMES, FRAMES) == pytest.approx(np.ones(3), abs=1e-5)
    assert (ssim(noisy, FRAMES) < 0.95).all()


@pytest.mark.parametrize("kind", list(Extractor))
def test_learned_metrics_ask_for_a_file(kind: Extractor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a TorchScript file such as"):
        load_feature_network(kind, None)
    with pytest.raises(InputError, match=r"missing\.pt"):
        load_feature_network(kind, tmp_path / "missing.pt")
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no network")
    with pytest.raises(InputError, match=r"broken\.pt is not a feature network"):
        load_feature_network(kind, broken)


class _MeanColor(torch.nn.Module):
    def forward(
        self,
        x: torch.Tensor,
        return_features: bool = True,
        return_lpips: bool = True,
        resize_images: bool = False,
        rescale: bool = True,
        resize: bool = True,
    ) -> torch.Tensor:
        return x.flatten(2).mean(2)


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    path = tmp_path / "mean_color.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(_MeanColor()).save(str(path))
    return path


def test_lpips_is_the_squared_feature_distance(network_file: Path) -> None:
    network = load_feature_network(Extractor.LPIPS, network_file)
    assert lpips(FRAMES + np.uint8(2), FRAMES, network) == pytest.approx(np.full(3, 3 * 2.0**2), rel=1e-3)


def test_fvd_carries_everything_it_depends_on(network_file: Path) -> None:
    network = load_feature_network(Extractor.FVD, network_file)
    clips = RNG.integers(0, 255, size=(6, 4, 32, 48, 3)).astype(np.uint8)
    result = frechet([clips[:3], clips[3:]], [clips], network)
    assert result.value == pytest.approx(0.0, abs=1e-6)
    assert (result.num_predicted, result.num_frames, result.height_px, result.width_px) == (6, 4, 32, 48)
    assert result.extractor == "mean_color.pt"
    with pytest.raises(ValueError, match="fvd reads"):
        network.features(FRAMES)


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift() -> None:
    a = RNG.normal(size=(500, 4))
    assert frechet_distance(a + np.array([3.0, 0, 0, 4.0]), a) == pytest.approx(25.0)
    assert frechet_distance(2 * a, a) > 1.0
