"""The numbers a run computes with: bf16 where the device multiplies it fast, else float32."""

from __future__ import annotations

import torch

from drivesim.errors import InputError
from drivesim.world_model.pretrained import fast_dtype

AUTO, FLOAT32, BF16 = "auto", "32-true", "bf16-mixed"
PRECISIONS = (AUTO, FLOAT32, BF16)


def resolved_precision(wanted: str, accelerator: str) -> str:
    """Return the precision that ``wanted`` means on the device that ``accelerator`` chooses.

    Raises:
        InputError: bf16 is demanded of an accelerator that has none.
    """
    if wanted == FLOAT32:
        return FLOAT32
    device_type = _device_type(accelerator)
    has_bf16 = _has_fast_bf16(device_type)
    if wanted == BF16 and not has_bf16 and device_type == "cuda":
        raise InputError(
            f"{torch.cuda.get_device_name()} has no bfloat16, which training.precision=bf16-mixed demands; "
            "choose training.precision=auto"
        )
    return BF16 if has_bf16 or wanted == BF16 else FLOAT32


def precision_note(wanted: str, resolved: str) -> str:
    """Return why a run computes as it does, or nothing where it is as expected."""
    if wanted == AUTO and resolved == FLOAT32:
        return "training in float32, as this device has no fast bfloat16; one that has it trains faster"
    return ""


def dtype_of(precision: str) -> torch.dtype:
    """Return the type of the matrix products."""
    return torch.bfloat16 if precision == BF16 else torch.float32


def _device_type(accelerator: str) -> str:
    if accelerator in ("cuda", "gpu", "auto") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("mps", "gpu", "auto") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _has_fast_bf16(device_type: str) -> bool:
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device_type == "cpu" and fast_dtype("cpu") is torch.bfloat16
