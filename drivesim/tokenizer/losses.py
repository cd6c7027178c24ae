"""Losses of the tokenizer, returned by name: pixel terms, an optional perceptual term and an optional patch GAN.

Letters: `B` batch, `C` channels, `H W` pixels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.tokenizer.vqgan import Reconstruction
from drivesim.torchvision_guard import import_timm


@dataclass(kw_only=True, slots=True)
class TokenizerLossConfig:
    """Weights of the terms; a term of weight 0 is neither built nor computed."""

    l1_weight: float = 0.3
    l2_weight: float = 3.0
    perceptual_weight: float = 0.0
    perceptual_model: str = "resnet18"  # a timm model whose features are compared
    perceptual_weights: str | None = (
        None  # file with that model's weights (safetensors or torch); nothing is fetched
    )
    adversarial_weight: float = 0.0
    discriminator_channels: int = 48

    def __post_init__(self) -> None:
        """Refuse negative weights and a perceptual term without features."""
        weights = (self.l1_weight, self.l2_weight, self.perceptual_weight, self.adversarial_weight)
        if min(weights) < 0 or max(weights[:2]) <= 0:
            raise ValueError(f"loss weights must be >= 0 and one of l1, l2 positive, got {weights}")
        if self.perceptual_weight > 0 and self.perceptual_weights is None:
            raise ValueError(
                "losses.perceptual_weight > 0 needs losses.perceptual_weights=FILE with the timm model's weights"
            )


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of a frame as real (positive) or reconstructed (negative), as in PatchGAN."""

    def __init__(self, channels: int) -> None:
        """Build three stride-2 convolutions behind a pixel-unshuffle stem."""
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels]
        layers: list[nn.Module] = [
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, widths[0], 3, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, frames_BCHW: Tensor) -> Tensor:
        """Return a map of scores (B, 1, H/8, W/8)."""
        scores: Tensor = self.layers(frames_BCHW)
        return scores


class TokenizerLoss(nn.Module):
    """All terms of the tokenizer's training in one module; holds the discriminator when there is one.

    The generator sees the discriminator through detached weights and the discriminator sees detached frames, so one
    optimizer serves both sides of the game.
    """

    def __init__(self, config: TokenizerLossConfig) -> None:
        """Build the optional parts that have a positive weight."""
        super().__init__()
        self.config = config
        self.discriminator: PatchDiscriminator | None = None
        self.features: nn.Module | None = None
        if config.adversarial_weight > 0:
            self.discriminator = PatchDiscriminator(config.discriminator_channels)
        if config.perceptual_weight > 0:
            self.features = PerceptualFeatures(config.perceptual_model, Path(str(config.perceptual_weights)))

    def forward(self, frames_BCHW: Tensor, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """Return the terms by name; ``loss`` is the weighted sum to minimise."""
        config = self.config
        output_BCHW = reconstruction.frames_BCHW
        terms = {
            "l1": functional.l1_loss(output_BCHW, frames_BCHW),
            "l2": functional.mse_loss(output_BCHW, frames_BCHW),
            "quantizer": reconstruction.quantized.loss,
        }
        loss = config.l1_weight * terms["l1"] + config.l2_weight * terms["l2"] + terms["quantizer"]
        if self.features is not None:
            terms["perceptual"] = self._perceptual(self.features, frames_BCHW, output_BCHW)
            loss = loss + config.perceptual_weight * terms["perceptual"]
        if self.discriminator is not None:
            terms["adversarial"] = self._adversarial(self.discriminator, output_BCHW)
            terms["discriminator"] = _hinge(self.discriminator, frames_BCHW, output_BCHW.detach())
            loss = loss + config.adversarial_weight * terms["adversarial"] + terms["discriminator"]
        return {"loss": loss, **terms}

    @staticmethod
    def _adversarial(discriminator: PatchDiscriminator, output_BCHW: Tensor) -> Tensor:
        frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
        scores: Tensor = functional_call(discriminator, frozen, (output_BCHW,))
        return -scores.mean()

    @staticmethod
    def _perceptual(features: nn.Module, frames_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = features(frames_BCHW)
        terms = [
            functional.mse_loss(functional.normalize(got, dim=1), functional.normalize(want, dim=1))
            for got, want in zip(features(output_BCHW), wanted, strict=True)
        ]
        return torch.stack(terms).mean()


def _hinge(discriminator: PatchDiscriminator, real_BCHW: Tensor, fake_BCHW: Tensor) -> Tensor:
    real, fake = discriminator(real_BCHW), discriminator(fake_BCHW)
    return 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())


class PerceptualFeatures(nn.Module):
    """Intermediate features of a timm model, frozen; what two frames share is compared there."""

    def __init__(self, name: str, weights: Path) -> None:
        """Build the timm model ``name`` and read its weights from a file; nothing is fetched.

        Raises:
            InputError: no such model, no such file, or weights that do not fit.
        """
        super().__init__()
        if not weights.is_file():
            raise InputError(
                f"there is no file {weights} for losses.perceptual_weights; name the timm model's weights"
            )
        timm = import_timm()
        try:
            self.model: Any = timm.create_model(name)
            timm.models.load_checkpoint(self.model, str(weights))
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            sentence = str(error).splitlines()[0]
            raise InputError(
                f"cannot use {weights} as weights of the timm model {name!r}: {sentence}"
            ) from error
        self.model.eval().requires_grad_(False)

    def forward(self, frames_BCHW: Tensor) -> list[Tensor]:
        """Return three feature maps, fine to coarse."""
        features: list[Tensor] = self.model.forward_intermediates(
            frames_BCHW, indices=[1, 2, 3], intermediates_only=True
        )
        return features
