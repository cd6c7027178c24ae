"""One process of a run: its state, and the steps that change it; Fabric has placed the model.

Everything that waits for other processes is done by all of them at the same step, see ``agreement.py``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drivesim import console
from drivesim.files import atomic_path
from drivesim.training.agreement import Agreement, means_over_processes, share_of
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
from drivesim.training.interruption import HeldSignals
from drivesim.training.precision import precision_note, resolved_precision
from drivesim.training.prefetch import Prefetcher
from drivesim.training.reports import Reports
from drivesim.training.row_draws import RowDraws, mixed_seed, rows_of
from drivesim.training.run_state import RunState
from drivesim.training.settings import TrainingConfig
from drivesim.training.task import WEIGHT, EvaluationFn, TrainTask
from drivesim.training.throughput import facts_of_run


@dataclass(kw_only=True, slots=True)
class RunOrder:
    """What a process of a run is to do."""

    task: TrainTask
    config: TrainingConfig
    out: Path
    resume: bool
    has_checkpoint: bool
    is_child: bool
    on_evaluation: EvaluationFn | None = None


class Run:
    """One process of a run: its state, and the steps that change it."""

    def __init__(self, fabric: Any, order: RunOrder) -> None:
        self.fabric, self.task, self.config, self.out = fabric, order.task, order.config, order.out
        task, config, out = order.task, order.config, order.out
        self.state = RunState(fabric, task.model, config)
        self.agreement = Agreement(fabric, is_timed=config.max_minutes is not None)
        self.signals = HeldSignals(is_child=order.is_child)
        is_noted = fabric.global_rank == 0 and config.max_minutes is not None
        self.clock = TrainingClock(out / CLOCK_NAME if is_noted else None, is_fresh=not order.resume)
        self.guard = DivergenceGuard(
            out, task.name, rank=fabric.global_rank, is_delayed=fabric.device.type != "cpu"
        )
        self.saved_s = time.monotonic()
        self.start_s = 0.0  # training time before this process
        self.metrics: dict[str, float] = {}
        self.evaluated_step = -1
        self.on_evaluation = order.on_evaluation
        self.is_enough = False  # says `on_evaluation`
        self.flop_per_batch: int | None = None
        self.reports: Reports | None = None  # in the first process only

    def load(self) -> None:
        """Go on from the folder's checkpoint."""
        saved = load_checkpoint(self.out / CHECKPOINT_NAME)
        self.state.load(saved)
        self.start_s = saved.elapsed_s

    def run(self) -> int | None:
        """Train to the end, save and evaluate; return the signal that came between, if one did."""
        if not self.state.module.training:
            self.state.module.train()
        with self._open_reports() as self.reports, self._prefetcher() as batches, closing(self.clock):
            self.clock.start(step=self.state.step, elapsed_s=self.start_s)
            self.saved_s = time.monotonic()
            with self.signals:
                while not self._is_over():
                    self._train_step(batches)
                    self._after_step()
                self._save()
            if self.agreement.signal is None and self.evaluated_step != self.state.step:
                self._evaluate()
        self.fabric.barrier()
        return self.agreement.signal

    def _train_step(self, batches: Iterator[Any]) -> None:
        state, num_batches = self.state, self.config.grad_accumulation
        state.learning_rate = state.schedule.rate(step=state.step, elapsed_s=self.clock.elapsed_s)
        record = StepRecord(step=state.step + 1, learning_rate=state.learning_rate)
        for i in range(num_batches):
            batch = next(batches)
            if self.flop_per_batch is None:
                self._count_flops(batch, state.step * num_batches + i)
            with self.fabric.no_backward_sync(state.model, enabled=i + 1 < num_batches):
                record.batches.append(self._backward(batch, state.step * num_batches + i))
        record.grad_norm = state.clip_gradients()
        self.guard.watch(record)
        state.move_weights()
        if self.reports is not None:
            state.means.add({"grad_norm": record.grad_norm})
        if self.reports is not None or state.is_sharded:
            state.average.update()
        state.step += 1

    def _backward(self, batch: Any, number: int) -> BatchRecord:
        seed = mixed_seed(self.config.seed, number, self.fabric.global_rank)
        torch.manual_seed(seed)
        draws = self._draws(number)
        with self.fabric.autocast():
            losses = self.task.losses(self.state.model, batch, draws)
        share = share_of(self.fabric, losses.pop(WEIGHT, None))
        self.fabric.backward(losses["loss"] * (share / self.config.grad_accumulation))
        losses = {name: loss.detach() for name, loss in losses.items()}
        means = means_over_processes(self.fabric, losses, share)
        if self.reports is not None:
            self.state.means.add(means)
            num_processes = self.fabric.world_size
            num_frames = self.task.num_frames(batch) * num_processes
            self.reports.speed.add(num_frames=num_frames, num_batches=num_processes)
        return BatchRecord(number=number, seed=seed, first_row=draws.rows[0], batch=batch, losses=losses)

    def _draws(self, number: int) -> RowDraws:
        fabric, config = self.fabric, self.config
        rows = rows_of(number, config.batch_size, rank=fabric.global_rank, world_size=fabric.world_size)
        return RowDraws(config.seed, rows, device=fabric.device, purpose="losses")

    def _count_flops(self, batch: Any, number: int) -> None:
        module = self.state.module

        def loss_fn() -> Tensor:
            with self.fabric.autocast():
                return self.task.losses(module, batch, self._draws(number))["loss"]

        with self._unclocked():
            self.flop_per_batch = training_flops(module, loss_fn)
        if self.reports is not None:
            self.reports.speed.flop_per_batch = self.flop_per_batch

    def _after_step(self) -> None:
        if self.reports is not None and self.state.step % self.config.log_every == 0:
            self._log(self.reports)
        if self._is_evaluation_due():
            self._evaluate()
        if self.agreement.is_save_due:
            with self._unclocked():
                self._save()

    def _unclocked(self) -> AbstractContextManager[None]:
        return nullcontext() if self.reports is None else self.reports.speed.paused()

    def _log(self, reports: Reports) -> None:
        self.guard.check()
        state, elapsed_s = self.state, self.clock.elapsed_s
        share = state.schedule.share_done(step=state.step, elapsed_s=elapsed_s)
        scalars = {**state.means.read(), "learning_rate": state.learning_rate}
        reports.train(state.step, scalars, elapsed_s=elapsed_s, share_done=share)

    def _save(self) -> None:
        self.guard.check()
        self.saved_s = time.monotonic()
        if self.reports is None and not self.state.is_sharded:
            return
        checkpoint = self.state.to_checkpoint(self.task.name, elapsed_s=self.clock.elapsed_s)
        if self.reports is not None:
            save_checkpoint(self.out / CHECKPOINT_NAME, checkpoint)
            self.clock.forget()
            self.saved_s = time.monotonic()

    def _is_evaluation_due(self) -> bool:
        every = self.config.evaluate_every
        return self.state.step > 0 and every > 0 and self.state.step % every == 0

    def _evaluate(self) -> None:
        self.guard.check()
        self.evaluated_step = self.state.step
        if self.reports is None and not self.state.is_sharded:
            return
        with self._unclocked(), self.state.averaged() as module:
            if self.reports is None:
                return
            torch.manual_seed(self.config.seed)
            with self.fabric.autocast():
                evaluation = self.task.evaluate(module)
            save_weights(self.out / WEIGHTS_NAME, module.state_dict())
        self.metrics = evaluation.metrics
        self.reports.evaluation(self.state.step, evaluation)
        if self.on_evaluation is not None:
            self.is_enough = self.on_evaluation(self.state.step, evaluation)

    def _is_over(self) -> bool:
        self.clock.tick(self.state.step)
        self.agreement.settle(
            self.state.step,
            signal=self.signals.received,
            elapsed_s=self.clock.elapsed_s,
            is_save_due=time.monotonic() - self.saved_s >= self.config.checkpoint_every_s,
        )
        self.clock.elapsed_s = self.agreement.elapsed_s
        limit_s = math.inf if self.config.max_minutes is None else 60.0 * self.config.max_minutes
        is_done = self.state.step >= self.config.num_train_steps or self.clock.elapsed_s >= limit_s
        return is_done or self.is_enough or self.agreement.signal is not None

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
