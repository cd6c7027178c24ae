"""Policies that misbehave are stopped, and say why."""

import os
import random
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

from benchmarks.guarded_output import Printed
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
        ("WritesBytes", "printed more than 1000000 characters, beginning with 'yyy"),
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


def test_a_few_bytes_are_allowed_and_swallowed(capfd):
    assert ask("WritesBytes@count=1000") == pytest.approx([0.0, 5.0])
    assert ask("WritesBytes@count=1000", ends_process=True) == pytest.approx([0.0, 5.0])
    assert capfd.readouterr().out == ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it ends, as it should
def test_threads_of_a_policy_print_nowhere_and_are_counted(capfd):
    limits = Limits(ends_process=True, printed=200_000)
    chatty = GuardedPolicy("bad_policies:ChattyThread", seed=0, limits=limits)
    good = GuardedPolicy("bad_policies:Whispers", seed=0, limits=limits)
    picture = np.zeros((4, 4, 3), np.uint8)
    chatty.select_action(picture, INFO)
    deadline = time.monotonic() + 30
    while not chatty._printed.is_too_much and time.monotonic() < deadline:
        time.sleep(0.01)
        good.select_action(picture, INFO)  # what the thread prints meanwhile is not taken for this one's
    chatty._policy.thread.join(30)
    assert not chatty._policy.thread.is_alive()
    print("the run itself is heard")  # noqa: T201
    sys.stdout.buffer.write(b"in bytes too\n")
    sys.stdout.flush()
    assert capfd.readouterr() == ("the run itself is heard\nin bytes too\n", "")
    with pytest.raises(PolicyFailure, match="printed more than 200000 characters, beginning with 'from a th"):
        chatty.select_action(picture, INFO)
    assert good.select_action(picture, INFO) == pytest.approx([0.0, 5.0])


def test_threads_of_others_print_as_before(capfd):
    for takes_threads in (False, True):
        begins, ends = threading.Event(), threading.Event()

        def speak(begins=begins, ends=ends):
            begins.wait(30)
            print("mine")  # noqa: T201
            ends.set()

        threading.Thread(target=speak, daemon=True).start()
        printed = Printed(10, takes_threads=takes_threads)
        with printed.captured():
            begins.set()
            assert ends.wait(30)
        assert printed.count == 0
    assert capfd.readouterr().out == "mine\nmine\n"


def test_a_stream_that_a_library_kept_is_passed_on(capfd):
    printed, other = Printed(10, takes_threads=True), Printed(100, takes_threads=True)
    with printed.captured():
        kept = sys.stderr
    kept.write("much more than ten characters\n")
    with other.captured():
        kept.write("to the other")
    assert capfd.readouterr().out == "much more than ten characters\n"
    assert (printed.count, other.begin) == (0, "to the other")


def shared_state():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        np.geterr(),
        list(warnings.filters),
        os.getcwd(),
    )


def test_what_a_policy_changes_of_the_process_stays_its_own(tmp_path):
    before, picture = shared_state(), np.zeros((4, 4, 3), np.uint8)
    first, second = (
        GuardedPolicy(f"bad_policies:ChangesTheProcess@folder={folder}", seed=0) for folder in (tmp_path, "/")
    )
    for _ in range(3):
        for policy in (first, second):
            policy.select_action(picture, INFO)
            assert shared_state() == before
    assert first._state.num_threads == before[0] + 3


def test_a_working_directory_that_is_gone_harms_nobody(tmp_path):
    folder, picture = tmp_path / "gone", np.zeros((4, 4, 3), np.uint8)
    folder.mkdir()
    policy = GuardedPolicy(f"bad_policies:ChangesTheProcess@folder={folder}", seed=0)
    policy.select_action(picture, INFO)
    before = os.getcwd()
    folder.rmdir()
    with pytest.raises(PolicyFailure):
        policy.select_action(picture, INFO)
    assert os.getcwd() == before
