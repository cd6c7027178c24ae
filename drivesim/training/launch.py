"""Lightning Fabric, imported only when a run starts: devices, precision, and how processes share a model."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from drivesim.errors import InputError
from drivesim.training.precision import resolved_precision
from drivesim.training.settings import TrainingConfig

PATIENCE = timedelta(hours=12)  # while the first process prepares data or evaluates, the others wait


def make_fabric(config: TrainingConfig) -> Any:
    """Return the ``Fabric`` that ``config`` asks for, from ``lightning_fabric`` or ``lightning``.

    Raises:
        InputError: Neither is installed, or the device lacks the precision, or there are not so many devices.
    """
    for name in ("lightning_fabric", "lightning.fabric"):
        if find_spec(name.partition(".")[0]) is not None:
            package = import_module(name)
            break
    else:
        raise InputError("training needs Lightning Fabric; run: pip install lightning-fabric")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the precision
    refusals = (
        ValueError,
        RuntimeError,
        import_module(f"{name}.utilities.exceptions").MisconfigurationException,
    )
    try:
        return package.Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=_strategy(config, import_module(f"{name}.strategies").DDPStrategy),
            precision=resolved_precision(config.precision, config.accelerator),
        )
    except refusals as error:
        sentence = " ".join(str(error).split())
        raise InputError(
            f"these devices cannot be had: {sentence}; check training.accelerator, training.devices and "
            "training.num_nodes"
        ) from error


def _strategy(config: TrainingConfig, ddp_strategy: type[Any]) -> Any:
    if config.num_processes == 1:
        return "auto"
    if not config.is_sharded:
        return ddp_strategy(timeout=PATIENCE)
    from drivesim.training.sharding import sharded_strategy

    return sharded_strategy(ddp_strategy)(timeout=PATIENCE)


def is_launched(config: TrainingConfig) -> bool:
    """Tell whether the processes of this machine were started by another program (torchrun, SLURM).

    Raises:
        InputError: As :func:`make_fabric`, or that program started more or fewer than the settings say.
    """
    started = int(os.environ.get("WORLD_SIZE", config.num_processes))
    if "LOCAL_RANK" in os.environ and started != config.num_processes:
        raise InputError(
            f"{started} processes were started, but training.devices={config.devices} x "
            f"training.num_nodes={config.num_nodes} asks for {config.num_processes}; make them the same"
        )
    environment = getattr(make_fabric(config).strategy, "cluster_environment", None)
    return environment is not None and bool(environment.creates_processes_externally)
