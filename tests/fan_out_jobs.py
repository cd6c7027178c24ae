"""Functions that tests send to other processes; light, because every process imports them anew."""

import os
import time


def squared(job):
    """Return the square, the small ones last."""
    time.sleep(0.05 if job == 0 else 0.0)
    return job * job


def squared_or_dies(job):
    """End the process without a word at 2."""
    if job == 2:
        os._exit(7)
    return job * job


def refuses(job):
    """Raise at 1."""
    if job == 1:
        raise KeyError(f"no {job}")
    return job


def unsendable(job):
    """Return something that cannot be pickled."""
    return lambda: job


def process_number(job):
    """Return which process worked."""
    time.sleep(0.2)
    return os.getpid()
