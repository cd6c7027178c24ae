"""Lightning Fabric, imported only when a run starts: devices, precision and processes."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from drivesim.errors import InputError
from drivesim.training.precision import resolved_precision
from drivesim.training.settings import TrainingConfig


def make_fabric(config: TrainingConfig) -> Any:
    """Return the ``Fabric`` that ``config`` asks for, from ``lightning_fabric`` or ``lightning``.

    Raises:
        InputError: Neither is installed, or the device lacks the precision.
    """
    for name in ("lightning_fabric", "lightning.fabric"):
        if find_spec(name.partition(".")[0]) is not None:
            fabric_class = import_module(name).Fabric
            break
    else:
        raise InputError("training needs Lightning Fabric; run: pip install lightning-fabric")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision
    return fabric_class(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=resolved_precision(config.precision, config.accelerator),
    )
