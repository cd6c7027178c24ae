from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_task import ToyModel

from drivesim.errors import InputError
from drivesim.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from drivesim.training.ema import WeightAverage
from drivesim.training.optimizers import (
    OptimizerKind,
    build_optimizers,
    load_optimizer_state,
    split_parameters,
)
from drivesim.training.prefetch import Prefetcher
from drivesim.training.running_means import RunningMeans
from drivesim.training.schedule import CosineSchedule


def test_schedule_warms_up_falls_and_ends_at_the_minimum() -> None:
    schedule = CosineSchedule(learning_rate=1.0, min_ratio=0.1, warmup_steps=10, num_train_steps=100)
    rates = [schedule.rate(step=step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == pytest.approx(1.0)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("num_train_steps", [1, 2, 50])
@pytest.mark.parametrize("warmup_steps", [0, 1, 49, 200])
def test_schedule_stays_in_range_at_every_size(num_train_steps: int, warmup_steps: int) -> None:
    schedule = CosineSchedule(
        learning_rate=2.0, min_ratio=0.0, warmup_steps=warmup_steps, num_train_steps=num_train_steps
    )
    assert all(0.0 <= schedule.rate(step=step) <= 2.0 for step in range(num_train_steps + 2))


def test_schedule_follows_the_time_when_that_is_further_along() -> None:
    schedule = CosineSchedule(learning_rate=1.0, min_ratio=0.1, num_train_steps=1000, max_minutes=1.0)
    assert schedule.rate(step=10, elapsed_s=60.0) == pytest.approx(0.1)
    assert schedule.rate(step=10, elapsed_s=30.0) == pytest.approx(0.55)
    assert schedule.rate(step=999, elapsed_s=1.0) == pytest.approx(0.1)
    assert schedule.share_done(step=10, elapsed_s=90.0) == 1.0


def test_longer_run_goes_on_as_if_planned_so_after_a_warm_up() -> None:
    settings = {"learning_rate": 1.0, "min_ratio": 0.1, "warmup_steps": 10}
    first = CosineSchedule(num_train_steps=100, **settings)
    planned = CosineSchedule(num_train_steps=300, **settings)
    longer = CosineSchedule(num_train_steps=300, **settings)
    last = first.rate(step=99)
    longer.begin_leg(step=100, elapsed_s=0.0, rate=last, is_restart=False)
    rates = [longer.rate(step=step) for step in range(100, 300)]
    assert last < rates[0] < last + 0.2 * (planned.rate(step=100) - last)
    assert all(later > earlier for earlier, later in pairwise(rates[:10]))
    assert rates[10:] == pytest.approx([planned.rate(step=step) for step in range(110, 300)])
    assert rates[-1] == pytest.approx(0.1)
    assert longer.share_done(step=100) == pytest.approx(planned.share_done(step=100))


def test_restart_anneals_over_what_is_left_of_steps_or_minutes() -> None:
    schedule = CosineSchedule(
        learning_rate=1.0, min_ratio=0.1, warmup_steps=5, num_train_steps=10**6, max_minutes=11.0
    )
    schedule.begin_leg(step=1000, elapsed_s=600.0, rate=0.1, is_restart=True)
    assert schedule.share_done(step=1000, elapsed_s=600.0) == 0.0
    assert schedule.rate(step=1005, elapsed_s=600.1) == pytest.approx(1.0, abs=0.01)
    assert schedule.rate(step=2000, elapsed_s=630.0) == pytest.approx(0.55, abs=0.01)
    assert schedule.rate(step=3000, elapsed_s=660.0) == pytest.approx(0.1)


def test_lower_rate_of_a_new_leg_holds_at_once() -> None:
    schedule = CosineSchedule(learning_rate=0.1, warmup_steps=10, num_train_steps=1000)
    schedule.begin_leg(step=20, elapsed_s=0.0, rate=1.0, is_restart=False)
    assert schedule.rate(step=20) == pytest.approx(0.1, rel=0.01)


def test_average_follows_its_formula_and_copies_what_cannot_be_averaged() -> None:
    module = nn.Linear(2, 1, bias=False)
    module.register_buffer("count", torch.tensor(0))
    module.register_buffer("barrier", torch.tensor([0.0, float("-inf")]))
    average = WeightAverage(module, decay=0.25)
    expected = module.weight.detach().clone()
    for n in range(4):
        with torch.no_grad():
            module.weight += n + 1.0
            module.count += 1
        average.update()
        decay = min(0.25, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    state = average.state_dict()
    torch.testing.assert_close(state["weight"], expected)
    assert state["count"].item() == 4
    assert torch.equal(state["barrier"], module.barrier)


def test_average_swaps_in_and_out_even_after_an_error() -> None:
    module = nn.Linear(2, 1)
    average = WeightAverage(module, decay=0.9)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    seen = []

    def fail() -> None:
        with average.swapped_in():
            seen.append(module.weight.detach().clone())
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert torch.equal(seen[0], start)
    assert torch.equal(module.weight, start + 1.0)


def test_average_of_tied_weights_stays_tied() -> None:
    module = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "head": nn.Linear(3, 4, bias=False)})
    module["head"].weight = module["embedding"].weight
    average = WeightAverage(module, decay=0.5)
    with torch.no_grad():
        module["head"].weight.zero_()
    average.update()
    state = average.state_dict()
    assert torch.equal(state["embedding.weight"], state["head.weight"])
    with average.swapped_in():
        assert module["head"].weight is module["embedding"].weight


@pytest.mark.parametrize("kind", list(OptimizerKind))
def test_groups_hold_every_trainable_parameter_once(kind: OptimizerKind) -> None:
    module = nn.Sequential(ToyModel(dropout=0.0), nn.Conv2d(3, 4, 3), nn.Linear(32, 32))
    module[2].weight.requires_grad_(False)
    groups = split_parameters(module, kind=kind)
    grouped = [id(p) for p in [*groups.muon, *groups.decayed, *groups.plain]]
    assert sorted(grouped) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    optimizers = build_optimizers(module, kind=kind, learning_rate=1e-3, weight_decay=0.1, betas=[0.9, 0.95])
    optimized = [id(p) for o in optimizers for group in o.param_groups for p in group["params"]]
    assert sorted(optimized) == sorted(grouped)


def test_muon_takes_hidden_matrices_only_and_vectors_do_not_decay() -> None:
    module = ToyModel(dropout=0.0)
    groups = split_parameters(module, kind=OptimizerKind.muon)
    assert {id(p) for p in groups.muon} == {id(module.body[0].weight), id(module.body[4].weight)}
    assert {id(p) for p in groups.decayed} == {id(module.embedding.weight), id(module.head.weight)}
    assert all(p.ndim < 2 for p in groups.plain)
    adamw, muon = build_optimizers(
        module, kind=OptimizerKind.muon, learning_rate=1e-3, weight_decay=0.1, betas=[0.9, 0.95]
    )
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert muon.param_groups[0]["weight_decay"] == 0.1


def test_muon_leaves_tied_and_narrow_matrices_to_adamw() -> None:
    module = nn.ModuleDict(
        {"words": nn.Embedding(64, 32), "out": nn.Linear(32, 64, bias=False), "twist": nn.Linear(2, 32)}
    )
    module["out"].weight = module["words"].weight
    assert split_parameters(module, kind=OptimizerKind.muon).muon == []


def test_missing_muon_and_frozen_models_are_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"learning_rate": 1e-3, "weight_decay": 0.0, "betas": [0.9, 0.95]}
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(InputError, match=r"choose training\.optimizer=adamw"):
        build_optimizers(ToyModel(dropout=0.0), kind=OptimizerKind.muon, **settings)
    with pytest.raises(InputError, match="nothing to train"):
        build_optimizers(nn.ReLU(), kind=OptimizerKind.adamw, **settings)


def test_optimizer_state_of_another_model_is_refused() -> None:
    first, second = (
        torch.optim.AdamW(nn.Linear(2, 2).parameters()),
        torch.optim.AdamW(nn.PReLU().parameters()),
    )
    with pytest.raises(InputError, match="another model or optimizer"):
        load_optimizer_state(first, second.state_dict())


def checkpoint(step: int) -> Checkpoint:
    weight = torch.full((3,), float(step))
    return Checkpoint(
        task="toy",
        step=step,
        elapsed_s=1.5,
        model={"weight": weight},
        average={"weight": weight / 2},
        optimizers=[{"state": {0: {"exp_avg": weight}}, "param_groups": [{"params": [0], "lr": 0.1}]}],
        running_means={"loss": [0.1, 3]},
        config={"seed": 0, "max_minutes": None},
    )


def test_checkpoint_comes_back_as_it_was_without_code(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", checkpoint(7))
    loaded = load_checkpoint(tmp_path / "last.ckpt")
    assert loaded.step == 7
    assert torch.equal(loaded.model["weight"], torch.full((3,), 7.0))
    assert loaded.running_means == {"loss": [0.1, 3]}
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["format"] == 1


def test_checkpoint_from_before_legs_is_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.ckpt", checkpoint(7))
    contents = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del contents["leg"]
    torch.save(contents, tmp_path / "old.ckpt")
    assert load_checkpoint(tmp_path / "old.ckpt").leg == {}


def test_truncated_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(InputError, match="no checkpoint at"):
        load_checkpoint(path)
    save_checkpoint(path, checkpoint(7))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_checkpoint(path)
    torch.save({"format": 0}, path)
    with pytest.raises(InputError, match="not a checkpoint of this version"):
        load_checkpoint(path)


def test_running_means_survive_a_save() -> None:
    means, resumed = RunningMeans(), RunningMeans()
    means.add({"loss": torch.tensor(1.0)})
    resumed.load_state_dict(means.state_dict())
    for value in (2.0, 6.0):
        means.add({"loss": torch.tensor(value)})
        resumed.add({"loss": torch.tensor(value)})
    assert means.read() == resumed.read() == {"loss": 3.0}
    assert means.read() == {}


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetched_batches_keep_their_order_and_end_with_the_block(depth: int) -> None:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    with Prefetcher(numbers(), depth=depth, prepare=lambda n: 10 * n) as batches:
        assert [next(batches) for _ in range(5)] == [0, 10, 20, 30, 40]
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 2])
def test_error_in_a_batch_reaches_the_caller(depth: int) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with Prefetcher(broken(), depth=depth) as batches:
        assert next(batches) == 1
        with pytest.raises(OSError, match="disk"):
            next(batches)
