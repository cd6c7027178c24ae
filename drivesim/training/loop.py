"""The training loop of every model: Fabric for devices, precision and processes; the rest is in plain sight.

Everything random in step ``n`` comes from a seed made of the run's seed, ``n`` and the process, so a run that
was killed and resumed computes what an unkilled one does, bit for bit on the same CPU.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.training.checkpoints import (
    CHECKPOINT_NAME,
    WEIGHTS_NAME,
    Checkpoint,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_weights,
)
from drivesim.training.ema import WeightAverage
from drivesim.training.interruption import HeldSignals
from drivesim.training.launch import make_fabric
from drivesim.training.optimizers import OptimizerKind, build_optimizers, load_optimizer_state
from drivesim.training.prefetch import Prefetcher
from drivesim.training.reports import Reports
from drivesim.training.run_folder import check_folder, check_resumable
from drivesim.training.running_means import RunningMeans
from drivesim.training.schedule import CosineSchedule
from drivesim.training.settings import TrainingConfig
from drivesim.training.task import Evaluation, FitResult, TrainTask

__all__ = ["Evaluation", "FitResult", "OptimizerKind", "TrainTask", "TrainingConfig", "fit"]


def fit(
    task: TrainTask,
    config: TrainingConfig,
    out: Path,
    *,
    resume: bool = False,
    on_start: Callable[[], None] | None = None,
) -> FitResult:
    """Train ``task.model`` in place, to hold the averaged weights at the end, and leave the run in ``out``.

    Written are ``last.ckpt`` (at most ``checkpoint_every_s`` old), ``ema.safetensors`` (the averaged weights,
    at every evaluation), ``log.jsonl``, ``tensorboard/``, ``pictures/`` and ``training.json``. Ctrl-C and
    SIGTERM save before they act. Several machines need ``out`` on a shared disk.

    Args:
        task: What to train.
        config: How to train it.
        out: The run's folder, made if needed.
        resume: Go on from ``out/last.ckpt``, or start if the run was killed before there was one.
        on_start: Called once it is clear that the run can start, before its first step.

    Raises:
        InputError: ``out`` holds a run and ``resume`` is False, the checkpoint does not fit the task or the
            settings, the loss is no longer finite, the disk is full, or Lightning Fabric is not installed.
    """
    out = Path(out)
    check_folder(out, resume=resume)
    check_resumable(out, task_name=task.name, model=task.model, config=config)
    has_checkpoint = (out / CHECKPOINT_NAME).exists()
    fabric = make_fabric(config)
    if on_start is not None:
        on_start()
    result: FitResult = fabric.launch(_fit_in_process, task, config, out, has_checkpoint)
    task.model.load_state_dict(load_file(result.weights))  # spawned processes trained copies
    return result


def _fit_in_process(
    fabric: Any, task: TrainTask, config: TrainingConfig, out: Path, has_checkpoint: bool
) -> FitResult:
    num_threads = torch.get_num_threads()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    try:
        run = _Run(fabric, task, config, out)
        if has_checkpoint:
            run.load()
        run.run()
    finally:
        torch.set_num_threads(num_threads)
    return FitResult(
        step=run.step, metrics=run.metrics, checkpoint=out / CHECKPOINT_NAME, weights=out / WEIGHTS_NAME
    )


class _Run:
    """One process of a run: the model, what changes with the steps, and the steps."""

    def __init__(self, fabric: Any, task: TrainTask, config: TrainingConfig, out: Path) -> None:
        self.fabric, self.task, self.config, self.out = fabric, task, config, out
        self.module = task.model
        self.optimizers = build_optimizers(
            self.module,
            kind=config.optimizer,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=config.betas,
        )
        self.model, *self.steppers = fabric.setup(self.module, *self.optimizers)
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.average = WeightAverage(self.module, decay=config.ema_decay)
        self.means = RunningMeans()
        self.generator = torch.Generator(device=fabric.device)
        self.schedule = CosineSchedule(
            learning_rate=config.learning_rate,
            min_ratio=config.min_learning_rate_ratio,
            warmup_steps=config.warmup_steps,
            num_train_steps=config.num_train_steps,
            max_minutes=config.max_minutes,
        )
        self.step = 0
        self.elapsed_s = 0.0  # training time over all resumes, as of the start of the step
        self.saved_s = self.ticked_s = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.evaluated_step = -1
        self.reports: Reports | None = None  # in the first process only

    def run(self) -> None:
        """Train to the end, save and evaluate."""
        if not self.module.training:
            self.module.train()
        with self._open_reports() as self.reports, self._prefetcher() as batches:
            self.saved_s = self.ticked_s = time.monotonic()
            with HeldSignals(is_active=self.fabric.world_size == 1) as held:
                while not self._is_over() and held.received is None:
                    self._train_step(batches)
                    self._after_step()
                self._save()
            held.raise_received()
            if self.reports is not None and self.evaluated_step != self.step:
                self._evaluate(self.reports)
        self.fabric.barrier()

    def load(self) -> None:
        """Go on from the folder's checkpoint."""
        saved = load_checkpoint(self.out / CHECKPOINT_NAME)
        self.module.load_state_dict(saved.model)
        for optimizer, state in zip(self.optimizers, saved.optimizers, strict=True):
            load_optimizer_state(optimizer, state)
        self.average.load_state_dict(saved.average, num_updates=saved.step)
        self.means.load_state_dict(saved.running_means, self.fabric.device)
        self.step, self.elapsed_s = saved.step, saved.elapsed_s

    def _save(self) -> None:
        if self.reports is None:
            return
        running_means = self.means.state_dict()
        self._check_finite(running_means["loss"][0] if running_means else 0.0)
        checkpoint = Checkpoint(
            task=self.task.name,
            step=self.step,
            elapsed_s=self.elapsed_s,
            model=self.module.state_dict(),
            average=self.average.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers],
            running_means=running_means,
            config=self.config.as_plain(),
        )
        save_checkpoint(self.out / CHECKPOINT_NAME, checkpoint)
        self.saved_s = time.monotonic()

    def _train_step(self, batches: Iterator[Any]) -> None:
        config, learning_rate = self.config, self.schedule.rate(step=self.step, elapsed_s=self.elapsed_s)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        for i in range(config.grad_accumulation):
            batch = next(batches)
            is_accumulating = i + 1 < config.grad_accumulation
            with self.fabric.no_backward_sync(self.model, enabled=is_accumulating):
                self._backward(batch, self.step * config.grad_accumulation + i)
        self._update_weights()
        self.step += 1

    def _backward(self, batch: Any, batch_number: int) -> None:
        seed = _mixed_seed(self.config.seed, batch_number, self.fabric.global_rank)
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)
        with self.fabric.autocast():
            losses = self.task.losses(self.model, batch, self.generator)
        num_batches = self.config.grad_accumulation
        self.fabric.backward(losses["loss"] / num_batches if num_batches > 1 else losses["loss"])
        if self.reports is not None:
            self.means.add(losses)
            self.reports.num_frames += self.task.num_frames(batch) * self.fabric.world_size

    def _update_weights(self) -> None:
        limit = self.config.grad_clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        for stepper in self.steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        if self.reports is not None:
            self.means.add({"grad_norm": norm})
            self.average.update()

    def _after_step(self) -> None:
        if self.reports is None:
            return
        if self.step % self.config.log_every == 0:
            self._log(self.reports)
        if self._is_evaluation_due():
            self._evaluate(self.reports)
        if time.monotonic() - self.saved_s >= self.config.checkpoint_every_s:
            with self.reports.paused():
                self._save()

    def _log(self, reports: Reports) -> None:
        means = self.means.read()
        self._check_finite(means["loss"])
        learning_rate = self.optimizers[0].param_groups[0]["lr"]
        share = self.schedule.share_done(step=self.step, elapsed_s=self.elapsed_s)
        scalars = {**means, "learning_rate": learning_rate}
        reports.train(self.step, scalars, elapsed_s=self.elapsed_s, share_done=share)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the loss of {self.task.name} is {loss} at step {self.step}; "
                "lower training.learning_rate, then start again or --resume from the last checkpoint"
            )

    def _is_evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        return self.step > 0 and every > 0 and self.step % every == 0

    def _evaluate(self, reports: Reports) -> None:
        was_training = {part: part.training for part in self.module.modules()}
        self.module.eval()
        torch.manual_seed(self.config.seed)
        with reports.paused(), self.average.swapped_in(), torch.no_grad(), self.fabric.autocast():
            evaluation = self.task.evaluate(self.module)
            save_weights(self.out / WEIGHTS_NAME, self.average.state_dict())
        for part, is_training in was_training.items():
            part.training = is_training
        self.metrics, self.evaluated_step = evaluation.metrics, self.step
        reports.evaluation(self.step, evaluation)

    def _is_over(self) -> bool:
        self._tick()
        limit_s = math.inf if self.config.max_minutes is None else 60.0 * self.config.max_minutes
        return self.step >= self.config.num_train_steps or self.elapsed_s >= limit_s

    def _tick(self) -> None:
        """Add the time since the last tick, the same in all processes when it decides anything."""
        now_s = time.monotonic()
        self.elapsed_s, self.ticked_s = self.elapsed_s + now_s - self.ticked_s, now_s
        if self.fabric.world_size > 1 and self.config.max_minutes is not None:
            self.elapsed_s = self.fabric.broadcast(self.elapsed_s)

    def _prefetcher(self) -> Prefetcher:
        fabric, config = self.fabric, self.config
        batches = self.task.batches(
            start_step=self.step * config.grad_accumulation,
            batch_size=config.batch_size,
            seed=config.seed,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        if fabric.device.type == "cpu":
            return Prefetcher(batches, depth=config.num_prefetch_batches or 0)
        depth = 2 if config.num_prefetch_batches is None else config.num_prefetch_batches
        return Prefetcher(batches, prepare=fabric.to_device, depth=depth)

    @contextmanager
    def _open_reports(self) -> Iterator[Reports | None]:
        if self.fabric.global_rank != 0:
            yield None
            return
        self.out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.out)
        with atomic_path(self.out / "training.json") as temporary:
            temporary.write_text(json.dumps(self.config.as_plain(), indent=1) + "\n", encoding="utf-8")
        total = self.config.num_train_steps
        done = round(total * self.schedule.share_done(step=self.step, elapsed_s=self.elapsed_s))
        with Reports(self.out, self.task.name, total=total, done=done) as reports:
            yield reports


def _mixed_seed(seed: int, batch_number: int, rank: int) -> int:
    # Hashed, since generators on the CPU look at the low 32 bits only.
    digest = hashlib.blake2b(f"{seed}/{batch_number}/{rank}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")
