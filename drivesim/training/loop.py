"""The training loop of every model: Fabric for devices, precision and processes; the rest is in plain sight.

Everything random in step ``n`` comes from the run's seed and ``n``, so a run that was killed and resumed computes what
an unkilled one does, bit for bit on the same device. Rows draw from their number in the run (``row_draws.py``), and
losses are means over the batches of all processes: a run is the same on any number of them, up to rounding. Not so
where a model draws itself (dropout), or where clips are streamed: every process records its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from drivesim.training.checkpoints import CHECKPOINT_NAME, WEIGHTS_NAME
from drivesim.training.initial_weights import initialize_from
from drivesim.training.interruption import raise_signal
from drivesim.training.launch import is_launched, make_fabric
from drivesim.training.optimizers import OptimizerKind
from drivesim.training.processes import end_turn, run_in_processes
from drivesim.training.run import Run, RunOrder
from drivesim.training.run_folder import check_folder, check_resumable
from drivesim.training.settings import TrainingConfig
from drivesim.training.task import Evaluation, EvaluationFn, FitResult, TrainTask

__all__ = ["Evaluation", "FitResult", "OptimizerKind", "TrainTask", "TrainingConfig", "fit"]


def fit(
    task: TrainTask,
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
    on_evaluation: EvaluationFn | None = None,
) -> FitResult:
    """Train ``task.model`` in place, to hold the averaged weights at the end, and leave the run in ``out``.

    Written are ``last.ckpt`` (at most ``checkpoint_every_s`` old), ``ema.safetensors`` (the averaged weights,
    at every evaluation), ``log.jsonl`` (the learning curve), ``tensorboard/``, ``pictures/`` and
    ``training.json``; a loss that is not finite leaves ``diverged-step-*``. Ctrl-C and SIGTERM save before they
    act. Several devices have a process each, which this one starts, unless torchrun or SLURM did: a script that
    calls this must then be guarded by ``if __name__ == "__main__"``. Several machines need ``out`` on a shared disk.
    A run may be resumed on other devices, divided or not, as long as the samples of a step stay as many.

    Args:
        task: What to train.
        config: How to train it.
        out: The run's folder, made if needed.
        resume: Go on from ``out/last.ckpt``, or start if the run was killed before there was one.
        on_start: Called once it is clear that the run can start, before its first step.
        on_evaluation: Called with the step and each evaluation once its weights are written; True ends the run. For
            one process.

    Raises:
        InputError: ``out`` holds a run and ``resume`` is False, the checkpoint does not fit the task or the
            settings, the weights to start from do not fit, the loss is no longer finite, the disk is full,
            Lightning Fabric is not installed, or there are not so many devices.
        RuntimeError: One of several processes failed; all have ended.
    """
    if on_evaluation is not None and config.num_processes > 1:
        raise ValueError("on_evaluation is for runs of one process")
    end_turn()
    out = Path(out)
    check_folder(out, resume=resume)
    check_resumable(out, task_name=task.name, model=task.model, config=config)
    has_checkpoint = (out / CHECKPOINT_NAME).exists()
    if config.init is not None and not has_checkpoint:
        initialize_from(task.model, config.init, new_modules=config.new_modules)
    is_child = not is_launched(config) and config.num_processes > 1
    if on_start is not None:
        on_start()
    order = RunOrder(
        task=task,
        config=config,
        out=out,
        resume=resume,
        has_checkpoint=has_checkpoint,
        is_child=is_child,
        on_evaluation=on_evaluation,
    )
    ending: _Ending = run_in_processes(_fit_here, order, config) if is_child else _fit_here(order)
    raise_signal(ending.signal)
    task.model.load_state_dict(load_file(ending.result.weights))  # other processes trained copies
    return ending.result


@dataclass(kw_only=True, slots=True)
class _Ending:
    result: FitResult
    signal: int | None  # that ended the run


def _fit_here(order: RunOrder) -> _Ending:
    ending: _Ending = make_fabric(order.config).launch(_fit_in_process, order)
    return ending


def _fit_in_process(fabric: Any, order: RunOrder) -> _Ending:
    num_threads = torch.get_num_threads()
    if order.config.num_threads is not None:
        torch.set_num_threads(order.config.num_threads)
    try:
        run = Run(fabric, order)
        if order.has_checkpoint:
            run.load()
        number = run.run()
    finally:
        torch.set_num_threads(num_threads)
    checkpoint, weights = order.out / CHECKPOINT_NAME, order.out / WEIGHTS_NAME
    result = FitResult(step=run.state.step, metrics=run.metrics, checkpoint=checkpoint, weights=weights)
    return _Ending(result=result, signal=number)
