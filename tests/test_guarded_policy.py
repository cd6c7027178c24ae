"""Policies that misbehave are stopped, and say why."""

import os
import random
import sys
import time

import numpy as np
import pytest

from benchmarks.guarded_policy import GuardedPolicy, Limits, PolicyFailure
from drivesim.errors import InputError

INFO = {"ego": {"speed_mps": 5.0}, "metrics": {"progress_m": {"value": 1.0, "is_valid": True}}}


def ask(name, **limits):
    policy = GuardedPolicy(f"bad_policies:{name}", seed=3, limits=Limits(**limits))
    return policy.select_action(np.full((4, 4, 3), 7, np.uint8), INFO)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Nan", r"steering_rad = nan must be a number in \[-0.5, 0.5\]"),
        ("WrongShape", r"got shape \(3,\)"),
        ("NoNumbers", "got 'straight on'"),
        ("OutOfRange", "steering_rad = 2"),
        ("Exits", "select_action raised SystemExit: 3"),
        ("Chatty", "printed more than 1000000 characters, beginning with 'so many words"),
        ("ChattyAndStubborn", "printed more than 1000000 characters, beginning with 'xxx"),
    ],
)
def test_what_a_policy_did_wrong_is_said(name, reason, capfd):
    with pytest.raises(PolicyFailure, match=reason):
        ask(name)
    assert capfd.readouterr() == ("", "")


def test_an_error_is_one_line_and_comes_when_it_comes():
    policy = GuardedPolicy("bad_policies:RaisesAtThird", seed=0)
    picture = np.zeros((4, 4, 3), np.uint8)
    assert policy.select_action(picture, INFO) == pytest.approx([0.0, 5.0])
    policy.select_action(picture, INFO)
    with pytest.raises(PolicyFailure, match=r"raised RuntimeError: the third picture is too much$"):
        policy.select_action(picture, INFO)
    assert policy.seconds > 0


def test_a_sleeping_policy_is_woken_up():
    began = time.monotonic()
    with pytest.raises(PolicyFailure, match=r"select_action took longer than 0.2 s"):
        ask("Sleeps", action_s=0.2)
    assert time.monotonic() - began < 30
    time.sleep(0.3)  # no alarm is left


def test_a_few_words_are_swallowed_and_allowed(capfd):
    assert ask("Whispers", ends_process=True) == pytest.approx([0.0, 5.0])
    print("still here")  # noqa: T201
    os.write(1, b"and here\n")
    assert capfd.readouterr().out == "still here\nand here\n"


def test_a_policy_cannot_change_what_is_measured():
    picture, info = np.full((4, 4, 3), 7, np.uint8), {**INFO, "end_reason": ""}
    GuardedPolicy("bad_policies:Meddles", seed=0).select_action(picture, info)
    assert (picture == 7).all()
    assert info == {**INFO, "end_reason": ""}


def test_every_policy_has_random_numbers_of_its_own():
    def drive(seed, *, disturbs):
        policy = GuardedPolicy("bad_policies:GlobalRandom", seed=seed)
        actions = []
        for _ in range(3):
            actions.append(policy.select_action(np.zeros((4, 4, 3), np.uint8), INFO))
            if disturbs:
                random.random()
                np.random.rand()  # noqa: NPY002
        return np.array(actions)

    before = random.getstate()
    alone = drive(1, disturbs=False)
    assert random.getstate() == before
    assert np.array_equal(alone, drive(1, disturbs=True))
    assert not np.array_equal(alone, drive(2, disturbs=False))


def test_what_does_not_exist_is_bad_input():
    with pytest.raises(InputError, match="did you mean pure-pursuit"):
        GuardedPolicy("pure-persuit", seed=0)
    with pytest.raises(InputError, match="OSError: no weights here"):
        GuardedPolicy("bad_policies:CannotBeMade", seed=0)
    with pytest.raises(InputError, match="--time-limit must be positive"):
        Limits(action_s=0)
    assert sys.stdout is not None
