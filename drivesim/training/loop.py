"""The training loop of every model: Fabric for devices, precision and processes; the rest is in plain sight.

Everything random in step ``n`` comes from a seed made of the run's seed, ``n`` and the process, so a run that
was killed and resumed computes what an unkilled one does, bit for bit on the same device.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from drivesim import console
from drivesim.files import atomic_path
from drivesim.training.checkpoints import (
    CHECKPOINT_NAME,
    WEIGHTS_NAME,
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    save_weights,
)
from drivesim.training.clock import CLOCK_NAME, TrainingClock
from drivesim.training.divergence import BatchRecord, DivergenceGuard, StepRecord
from drivesim.training.flops import training_flops
from drivesim.training.initial_weights import initialize_from
from drivesim.training.interruption import HeldSignals
from drivesim.training.launch import make_fabric
from drivesim.training.optimizers import OptimizerKind
from drivesim.training.precision import precision_note, resolved_precision
from drivesim.training.prefetch import Prefetcher
from drivesim.training.reports import Reports
from drivesim.training.run_folder import check_folder, check_resumable
from drivesim.training.run_state import RunState
from drivesim.training.settings import TrainingConfig
from drivesim.training.task import Evaluation, FitResult, TrainTask
from drivesim.training.throughput import facts_of_run

EvaluationFn = Callable[[int, Evaluation], bool]

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
    act. Several machines need ``out`` on a shared disk.

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
            settings, the weights to start from do not fit, the loss is no longer finite, the disk is full, or
            Lightning Fabric is not installed.
    """
    if on_evaluation is not None and config.devices * config.num_nodes > 1:
        raise ValueError("on_evaluation is for runs of one process")
    out = Path(out)
    check_folder(out, resume=resume)
    check_resumable(out, task_name=task.name, model=task.model, config=config)
    has_checkpoint = (out / CHECKPOINT_NAME).exists()
    if config.init is not None and not has_checkpoint:
        initialize_from(task.model, config.init, new_modules=config.new_modules)
    fabric = make_fabric(config)
    if on_start is not None:
        on_start()
    result: FitResult = fabric.launch(
        _fit_in_process, task, config, out, resume, has_checkpoint, on_evaluation
    )
    task.model.load_state_dict(load_file(result.weights))  # spawned processes trained copies
    return result


def _fit_in_process(
    fabric: Any,
    task: TrainTask,
    config: TrainingConfig,
    out: Path,
    resume: bool,
    has_checkpoint: bool,
    on_evaluation: EvaluationFn | None,
) -> FitResult:
    num_threads = torch.get_num_threads()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    try:
        run = _Run(fabric, task, config, out, resume=resume)
        run.on_evaluation = on_evaluation
        if has_checkpoint:
            run.load()
        run.run()
    finally:
        torch.set_num_threads(num_threads)
    return FitResult(
        step=run.state.step, metrics=run.metrics, checkpoint=out / CHECKPOINT_NAME, weights=out / WEIGHTS_NAME
    )


class _Run:
    """One process of a run: its state, and the steps that change it."""

    def __init__(
        self, fabric: Any, task: TrainTask, config: TrainingConfig, out: Path, *, resume: bool
    ) -> None:
        self.fabric, self.task, self.config, self.out = fabric, task, config, out
        self.state = RunState(fabric, task.model, config)
        self.generator = torch.Generator(device=fabric.device)
        is_noted = fabric.global_rank == 0 and config.max_minutes is not None
        self.clock = TrainingClock(out / CLOCK_NAME if is_noted else None, is_fresh=not resume)
        self.guard = DivergenceGuard(
            out, task.name, rank=fabric.global_rank, is_delayed=fabric.device.type != "cpu"
        )
        self.saved_s = time.monotonic()
        self.start_s = 0.0  # training time before this process
        self.metrics: dict[str, float] = {}
        self.evaluated_step = -1
        self.on_evaluation: EvaluationFn | None = None
        self.is_enough = False  # says `on_evaluation`
        self.reports: Reports | None = None  # in the first process only

    def load(self) -> None:
        """Go on from the folder's checkpoint."""
        saved = load_checkpoint(self.out / CHECKPOINT_NAME)
        self.state.load(saved)
        self.start_s = saved.elapsed_s

    def run(self) -> None:
        """Train to the end, save and evaluate."""
        if not self.state.module.training:
            self.state.module.train()
        with self._open_reports() as self.reports, self._prefetcher() as batches, closing(self.clock):
            self.clock.start(step=self.state.step, elapsed_s=self.start_s)
            self.saved_s = time.monotonic()
            with HeldSignals(is_active=self.fabric.world_size == 1) as held:
                while not self._is_over() and held.received is None:
                    self._train_step(batches)
                    self._after_step()
                self._save()
            held.raise_received()
            if self.reports is not None and self.evaluated_step != self.state.step:
                self._evaluate(self.reports)
        self.fabric.barrier()

    def _train_step(self, batches: Iterator[Any]) -> None:
        state, num_batches = self.state, self.config.grad_accumulation
        state.learning_rate = state.schedule.rate(step=state.step, elapsed_s=self.clock.elapsed_s)
        record = StepRecord(step=state.step + 1, learning_rate=state.learning_rate)
        for i in range(num_batches):
            batch = next(batches)
            if self.reports is not None and self.reports.speed.flop_per_batch is None:
                self._count_flops(self.reports, batch)
            with self.fabric.no_backward_sync(state.model, enabled=i + 1 < num_batches):
                record.batches.append(self._backward(batch, state.step * num_batches + i))
        record.grad_norm = state.clip_gradients()
        self.guard.watch(record)
        state.move_weights()
        if self.reports is not None:
            state.means.add({"grad_norm": record.grad_norm})
            state.average.update()
        state.step += 1

    def _backward(self, batch: Any, number: int) -> BatchRecord:
        seed = _mixed_seed(self.config.seed, number, self.fabric.global_rank)
        torch.manual_seed(seed)
        self.generator.manual_seed(seed)
        with self.fabric.autocast():
            losses = self.task.losses(self.state.model, batch, self.generator)
        num_batches = self.config.grad_accumulation
        self.fabric.backward(losses["loss"] / num_batches if num_batches > 1 else losses["loss"])
        losses = {name: loss.detach() for name, loss in losses.items()}
        if self.reports is not None:
            self.state.means.add(losses)
            num_processes = self.fabric.world_size
            num_frames = self.task.num_frames(batch) * num_processes
            self.reports.speed.add(num_frames=num_frames, num_batches=num_processes)
        return BatchRecord(number=number, seed=seed, batch=batch, losses=losses)

    def _count_flops(self, reports: Reports, batch: Any) -> None:
        module = self.state.module

        def loss_fn() -> Tensor:
            with self.fabric.autocast():
                return self.task.losses(module, batch, self.generator)["loss"]

        with reports.speed.paused():
            reports.speed.flop_per_batch = training_flops(module, loss_fn)

    def _after_step(self) -> None:
        if self.reports is None:
            return
        if self.state.step % self.config.log_every == 0:
            self._log(self.reports)
        if self._is_evaluation_due():
            self._evaluate(self.reports)
        if time.monotonic() - self.saved_s >= self.config.checkpoint_every_s:
            with self.reports.speed.paused():
                self._save()

    def _log(self, reports: Reports) -> None:
        self.guard.check()
        state, elapsed_s = self.state, self.clock.elapsed_s
        share = state.schedule.share_done(step=state.step, elapsed_s=elapsed_s)
        scalars = {**state.means.read(), "learning_rate": state.learning_rate}
        reports.train(state.step, scalars, elapsed_s=elapsed_s, share_done=share)

    def _save(self) -> None:
        self.guard.check()
        if self.reports is None:
            return
        checkpoint = self.state.to_checkpoint(self.task.name, elapsed_s=self.clock.elapsed_s)
        save_checkpoint(self.out / CHECKPOINT_NAME, checkpoint)
        self.clock.forget()
        self.saved_s = time.monotonic()

    def _is_evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        return self.state.step > 0 and every > 0 and self.state.step % every == 0

    def _evaluate(self, reports: Reports) -> None:
        self.guard.check()
        module, average = self.state.module, self.state.average
        was_training = {part: part.training for part in module.modules()}
        module.eval()
        torch.manual_seed(self.config.seed)
        with reports.speed.paused(), average.swapped_in(), torch.no_grad(), self.fabric.autocast():
            evaluation = self.task.evaluate(module)
            save_weights(self.out / WEIGHTS_NAME, average.state_dict())
        for part, is_training in was_training.items():
            part.training = is_training
        self.metrics, self.evaluated_step = evaluation.metrics, self.state.step
        reports.evaluation(self.state.step, evaluation)
        if self.on_evaluation is not None:
            self.is_enough = self.on_evaluation(self.state.step, evaluation)

    def _is_over(self) -> bool:
        self.clock.tick(self.state.step)
        if self.fabric.world_size > 1 and self.config.max_minutes is not None:
            self.clock.elapsed_s = self.fabric.broadcast(self.clock.elapsed_s)
        limit_s = math.inf if self.config.max_minutes is None else 60.0 * self.config.max_minutes
        is_spent = self.state.step >= self.config.num_train_steps or self.clock.elapsed_s >= limit_s
        return is_spent or self.is_enough

    def _prefetcher(self) -> Prefetcher:
        fabric, config = self.fabric, self.config
        batches = self.task.batches(
            start_step=self.state.step * config.grad_accumulation,
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
        config, state = self.config, self.state
        self.out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.out)
        with atomic_path(self.out / "training.json") as temporary:
            temporary.write_text(json.dumps(config.as_plain(), indent=1) + "\n", encoding="utf-8")
        precision = resolved_precision(config.precision, config.accelerator)
        if note := precision_note(config.precision, precision):
            console.say(note)
        facts = facts_of_run(self.fabric, state.module, precision=precision)
        share = state.schedule.share_done(step=state.step, elapsed_s=self.start_s)
        total = config.num_train_steps
        with Reports(
            self.out, self.task.name, facts, step=state.step, total=total, share_done=share
        ) as reports:
            yield reports


def _mixed_seed(seed: int, batch_number: int, rank: int) -> int:
    # Hashed, since generators on the CPU look at the low 32 bits only.
    digest = hashlib.blake2b(f"{seed}/{batch_number}/{rank}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "little")
