"""Policies that misbehave, each in its own way; other processes import them by name."""

import contextlib
import itertools
import os
import random
import sys
import threading
import time
import warnings

import numpy as np
import torch

GOOD = np.array([0.0, 5.0], dtype=np.float32)


class Nan:
    def select_action(self, observation, info):
        return np.array([np.nan, 5.0], dtype=np.float32)


class WrongShape:
    def select_action(self, observation, info):
        return np.zeros(3, dtype=np.float32)


class NoNumbers:
    def select_action(self, observation, info):
        return "straight on"


class OutOfRange:
    def select_action(self, observation, info):
        return np.array([2.0, 5.0], dtype=np.float32)


class RaisesAtThird:
    def __init__(self):
        self.count = 0

    def select_action(self, observation, info):
        self.count += 1
        if self.count == 3:
            raise RuntimeError("the third\npicture is too much")
        return GOOD


class Exits:
    def select_action(self, observation, info):
        sys.exit(3)


class Sleeps:
    def select_action(self, observation, info):
        time.sleep(60)
        return GOOD


class SwallowsAlarms:
    """Cannot be interrupted from within Python."""

    def select_action(self, observation, info):
        for _ in itertools.count():
            try:
                time.sleep(60)
            except BaseException:
                continue


class Chatty:
    def select_action(self, observation, info):
        print("so many words " * 200_000)  # noqa: T201
        return GOOD


class ChattyAndStubborn:
    def select_action(self, observation, info):
        with contextlib.suppress(BaseException):
            sys.stderr.write("x" * 2_000_000)
        return GOOD


class Whispers:
    """Prints a little, past Python too; that is allowed."""

    def select_action(self, observation, info):
        print("left a bit")  # noqa: T201
        os.write(1, b"right a bit\n")
        return GOOD


class EndsItsProcess:
    def select_action(self, observation, info):
        os._exit(9)


class CannotBeMade:
    def __init__(self):
        raise OSError("no weights here")

    def select_action(self, observation, info):
        return GOOD


class Meddles:
    """Changes what it is shown and told, which must not matter."""

    def select_action(self, observation, info):
        observation[:] = 0
        info["metrics"]["progress_m"]["value"] = 1e9
        info["ego"].clear()
        info["end_reason"] = "goal"
        return GOOD


class GlobalRandom:
    """Draws from the generators that everybody shares."""

    def select_action(self, observation, info):
        steering = random.uniform(-0.1, 0.1) + np.random.uniform(-0.1, 0.1)  # noqa: NPY002
        return np.array([steering, 8.0], dtype=np.float32)


class WritesBytes:
    """Prints past the text layer, a number of bytes."""

    def __init__(self, count=2_000_000):
        self.count = count

    def select_action(self, observation, info):
        sys.stdout.buffer.write(b"y" * self.count)
        sys.stdout.buffer.flush()
        return GOOD


class ChattyThread:
    """Leaves a thread behind that prints for good."""

    def __init__(self):
        self.thread = threading.Thread(target=self._print, daemon=True)

    def select_action(self, observation, info):
        if not self.thread.ident:
            self.thread.start()
        time.sleep(0.005)
        return GOOD

    def _print(self):
        while True:
            print("from a thread " * 100)  # noqa: T201
            time.sleep(0.001)


class ChangesTheProcess:
    """Leaves everything that a process shares in another state, and needs it so when it is asked again."""

    def __init__(self, folder="/"):
        self.folder, self.is_changed = folder, False

    def select_action(self, observation, info):
        state = [torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr()["divide"], os.getcwd()]
        changed = [torch.float64, False, "raise", os.path.realpath(self.folder)]
        if self.is_changed and state != changed:
            raise RuntimeError(f"{state} is not {changed}")
        self.is_changed = True
        torch.set_num_threads(torch.get_num_threads() + 1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        warnings.simplefilter("ignore")
        os.chdir(self.folder)
        return GOOD
