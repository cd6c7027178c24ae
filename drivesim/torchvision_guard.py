"""Makes torchvision importable beside a torch build that its compiled operators do not match.

timm and torchmetrics import torchvision eagerly. A torchvision linked against another torch build (a CUDA
wheel beside a CPU torch, as some package indexes pair them) fails there with ``operator torchvision::nms
does not exist``. Declaring the two schemas that its Python code registers kernels for lets the import finish;
box operators themselves stay unavailable and say so. With a matching pair nothing is touched.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[Any] = []  # a torch Library ends its declarations when it is collected


def ensure_torchvision() -> bool:
    """Import torchvision, declaring its missing operators if need be. Call it before timm or torchmetrics.

    Returns:
        True when the schemas had to be declared, False when torchvision imports as it is (or was repaired).
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _libraries.append(library)
    importlib.import_module("torchvision")
    return True


def import_timm() -> Any:
    """Return the timm module, with torchvision made importable first."""
    ensure_torchvision()
    return importlib.import_module("timm")
