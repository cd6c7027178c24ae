"""A public VQGAN as the tokenizer: diffusers' ``VQModel`` from a local folder, such as the f16 one of aMUSEd.

Nothing is downloaded and nothing is trained here. diffusers is an optional dependency and is imported on loading.
Letters: see ``drivesim/tokenizer/__init__.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from drivesim.errors import InputError
from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.quantizer import Quantized
from drivesim.torchvision_guard import ensure_torchvision

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
SUBFOLDER = "vqvae"  # where the folder of a whole pipeline has it
FETCH = (
    f"fetch one where there is network: hf download amused/amused-256 --include '{SUBFOLDER}/*' --local-dir ."
)


class PixelRange(Enum):
    """How a VQGAN writes black and white; its files do not say."""

    ZERO_TO_ONE = "zero_to_one"  # aMUSEd and openMUSE
    MINUS_ONE_TO_ONE = "minus_one_to_one"  # taming-transformers and latent diffusion


@dataclass(kw_only=True, slots=True)
class PublicVQGANConfig:
    """The frames a public VQGAN is used for; its own sizes come with its files."""

    height_px: int
    width_px: int
    stride: int = 16  # pixels per token and side
    pixel_range: PixelRange = PixelRange.ZERO_TO_ONE

    def __post_init__(self) -> None:
        """Refuse sizes that the stride does not divide."""
        sides = (self.height_px, self.width_px)
        if min(sides) < self.stride or any(side % self.stride for side in sides):
            raise InputError(
                f"frames of {self.height_px}x{self.width_px} px do not divide into tokens of {self.stride} px; "
                f"choose height_px and width_px as multiples of {self.stride}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Return the token rows and columns of a frame."""
        return self.height_px // self.stride, self.width_px // self.stride


class FrozenCodebook(nn.Module):
    """The quantizer of a public VQGAN: codes that stay as they are, searched in float32."""

    levels: tuple[int, ...] = ()

    def __init__(self, embedding: nn.Embedding) -> None:
        """Share the table of ``embedding``."""
        super().__init__()
        self.embedding = embedding
        self.codebook_size, self.code_dim = embedding.num_embeddings, embedding.embedding_dim

    def bounded(self, latents_BSQ: Tensor) -> Tensor:
        """Return the latents in float32; code space is not bounded here."""
        return latents_BSQ.float()

    def nearest(self, bounded_BSQ: Tensor) -> Tensor:
        """Return the token ids (B, S) of the codes nearest to points of code space."""
        with torch.autocast(bounded_BSQ.device.type, enabled=False):
            points = rearrange(bounded_BSQ.float(), "b s q -> (b s) q")
            distances = torch.cdist(points, self.embedding.weight.float())
        return rearrange(distances.argmin(-1), "(b s) -> b s", b=len(bounded_BSQ))

    def codes(self, token_ids: Tensor) -> Tensor:
        """Return the codebook vectors (..., Q) of token ids."""
        return functional.embedding(token_ids, self.embedding.weight.float())

    def forward(self, latents_BSQ: Tensor) -> Quantized:
        """Replace every latent by its nearest code, with the straight-through gradient and no loss."""
        bounded_BSQ = self.bounded(latents_BSQ)
        token_ids_BS = self.nearest(bounded_BSQ.detach())
        codes_BSQ = bounded_BSQ + (self.codes(token_ids_BS) - bounded_BSQ).detach()
        return Quantized(codes_BSQ=codes_BSQ, token_ids_BS=token_ids_BS, loss=bounded_BSQ.new_zeros(()))


class PublicVQGAN(Tokenizer):
    """A pretrained, frozen image tokenizer: frames (B, 3, H, W) in [-1, 1] to token ids (B, S) and back."""

    config: PublicVQGANConfig

    def __init__(self, model: Any, config: PublicVQGANConfig) -> None:
        """Wrap a diffusers ``VQModel``; :meth:`load` builds one from its files."""
        super().__init__()
        self.config = config
        self.model = model.eval().requires_grad_(False)
        self.quantizer = FrozenCodebook(model.quantize.embedding)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        height_px: int,
        width_px: int,
        pixel_range: PixelRange = PixelRange.ZERO_TO_ONE,
    ) -> PublicVQGAN:
        """Load a VQGAN in float32 for frames of one size.

        Args:
            folder: holds ``config.json`` and the weights, or is a pipeline with those in ``vqvae/``.
            height_px: of the frames.
            width_px: of the frames.
            pixel_range: what the VQGAN was trained on; the frames given here are in [-1, 1] whichever it is.

        Raises:
            InputError: a file is missing or of something else, weights do not fit, a side does not divide by the
                stride, or diffusers is not installed.
        """
        files = _folder_of_model(Path(folder))
        stride = _stride(files / CONFIG_NAME)
        config = PublicVQGANConfig(
            height_px=height_px, width_px=width_px, stride=stride, pixel_range=pixel_range
        )
        return cls(_load_model(files), config)

    def latents(self, frames_BCHW: Tensor) -> Tensor:
        """Return the latents (B, S, Q) before quantization."""
        self._check_frames(frames_BCHW)
        pixels_BCHW = self._from_frames(frames_BCHW).to(self._dtype())
        return rearrange(self.model.encode(pixels_BCHW).latents, "b q h w -> b (h w) q")

    def decode_codes(self, codes_BSQ: Tensor) -> Tensor:
        """Return frames (B, 3, H, W), not clipped, for codebook vectors (B, S, Q)."""
        rows, columns = self.grid
        z_BQHW = rearrange(codes_BSQ.to(self._dtype()), "b (h w) q -> b q h w", h=rows, w=columns)
        # VQModel.decode would search the codes again, or wants ids, by a flag of its configuration.
        guide = z_BQHW if self.model.config.norm_type == "spatial" else None
        pixels_BCHW = self.model.decoder(self.model.post_quant_conv(z_BQHW), guide)
        return self._to_frames(pixels_BCHW.float())

    def _from_frames(self, frames_BCHW: Tensor) -> Tensor:
        is_unit = self.config.pixel_range is PixelRange.ZERO_TO_ONE
        return (frames_BCHW + 1) / 2 if is_unit else frames_BCHW

    def _to_frames(self, pixels_BCHW: Tensor) -> Tensor:
        is_unit = self.config.pixel_range is PixelRange.ZERO_TO_ONE
        return pixels_BCHW * 2 - 1 if is_unit else pixels_BCHW

    def _dtype(self) -> torch.dtype:
        """Return the dtype to compute in; a model that overflows in float16 goes back to float32, as in aMUSEd."""
        if self.model.config.force_upcast and self.model.dtype == torch.float16:
            self.model.float()
        dtype: torch.dtype = self.model.dtype
        return dtype


def _folder_of_model(folder: Path) -> Path:
    for candidate in (folder, folder / SUBFOLDER):
        if (candidate / CONFIG_NAME).is_file():
            if not (candidate / WEIGHTS_NAME).is_file():
                raise InputError(f"{candidate} has no {WEIGHTS_NAME}; {FETCH}")
            return candidate
    raise InputError(
        f"{folder} is no folder of a VQGAN: it has neither {CONFIG_NAME} nor {SUBFOLDER}/{CONFIG_NAME}; {FETCH}"
    )


def _stride(path: Path) -> int:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable ({error}); {FETCH}") from error
    name = values.get("_class_name") if isinstance(values, dict) else None
    if name != "VQModel":
        raise InputError(f"{path} is of {name or 'no named class'}, but a VQModel is needed; {FETCH}")
    channels = [values.get(key, 3) for key in ("in_channels", "out_channels")]
    widths = values.get("block_out_channels", [64])
    if channels != [3, 3] or not isinstance(widths, list) or not widths:
        raise InputError(f"{path} is of a VQModel that does not read and write RGB pictures; {FETCH}")
    return int(2 ** (len(widths) - 1))


def _load_model(folder: Path) -> Any:
    vq_model = _vq_model_class()
    try:
        model, report = vq_model.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, TypeError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder} cannot be loaded ({reason}); {FETCH}") from error
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing or unexpected:
        raise InputError(
            f"{folder / WEIGHTS_NAME} does not fit its {CONFIG_NAME}: {len(missing)} tensors missing, "
            f"{len(unexpected)} unexpected (first: {(missing + unexpected)[0]}); {FETCH}"
        )
    return model


def _vq_model_class() -> Any:
    try:
        ensure_torchvision()
        from diffusers import VQModel
    except (ImportError, RuntimeError) as error:  # diffusers raises RuntimeError where a part of it fails
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"a public VQGAN needs diffusers, which cannot be imported ({reason}); run: pip install 'drivesim[vqgan]'"
        ) from error
    return VQModel
