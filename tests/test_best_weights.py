"""The best weights of a run, and the end of a run that gets no better."""

import pytest
from safetensors.torch import load_file
from toy_task import ToyTask, toy_config

from drivesim.training.best_weights import BEST_NAME, BestWeights, read_history
from drivesim.training.loop import Evaluation, fit


class Scripted(ToyTask):
    """A task whose evaluations are given, and that remembers the weights of each."""

    def __init__(self, *values, **settings):
        super().__init__(**settings)
        self.values, self.seen = list(values), []

    def evaluate(self, model):
        self.seen.append(model.head.bias.detach().clone())
        return Evaluation(metrics={"gain": self.values.pop(0)})


def run(folder, *values, start=0.0, patience=2, resume=False, **settings):
    task = Scripted(*values, **settings)
    guard = BestWeights(folder, "gain", start=start, patience=patience)
    config = toy_config(num_train_steps=10, evaluate_every=1, ema_decay=0.0)
    return task, guard, fit(task, config, folder, resume=resume, on_evaluation=guard)


def test_the_best_evaluated_weights_are_kept_and_a_run_ends_that_gets_worse(tmp_path):
    task, guard, result = run(tmp_path, 1.0, 3.0, 2.0, 1.0, 9.0)
    assert result.step == 4
    assert guard.is_enough
    assert (guard.history.best.step, guard.history.best.value) == (2, 3.0)
    assert load_file(tmp_path / BEST_NAME)["head.bias"].equal(task.seen[1])
    assert not load_file(tmp_path / "ema.safetensors")["head.bias"].equal(task.seen[1])


def test_a_new_best_value_gives_new_patience(tmp_path):
    _, guard, result = run(tmp_path, 1.0, 0.5, 2.0, 1.0, 3.0, 2.0, 2.0, 9.0)
    assert (result.step, guard.history.best.step) == (7, 5)


def test_nothing_is_kept_where_nothing_is_better_than_the_start(tmp_path):
    _, guard, result = run(tmp_path, 1.0, 2.0, 2.5, start=2.5, patience=3)
    assert guard.history.best is None
    assert result.step == 3
    assert not (tmp_path / BEST_NAME).exists()


def test_a_run_without_a_limit_uses_its_steps(tmp_path):
    _, guard, result = run(tmp_path, *range(1, 11), patience=1)
    assert (result.step, guard.history.best.value) == (10, 10)
    assert not guard.is_enough


def test_a_killed_run_is_judged_as_one_that_was_not(tmp_path):
    values = [1.0, 3.0, 2.0, 2.5, 9.0]
    run(tmp_path / "whole", *values)
    with pytest.raises(RuntimeError, match="crash"):
        run(tmp_path / "broken", *values, crash_at_batch=2)
    assert read_history(tmp_path / "broken").best.step == 2
    _, guard, _ = run(tmp_path / "broken", *values[2:], start=-99.0, resume=True)
    assert guard.history == read_history(tmp_path / "whole")
    first, second = (load_file(tmp_path / name / BEST_NAME) for name in ("whole", "broken"))
    assert first["head.bias"].equal(second["head.bias"])


def test_several_processes_are_refused(tmp_path):
    guard = BestWeights(tmp_path, "gain", start=0.0, patience=1)
    with pytest.raises(ValueError, match="one process"):
        fit(ToyTask(), toy_config(devices=2), tmp_path, on_evaluation=guard)
