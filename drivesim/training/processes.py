"""The processes of a run on this machine: started, told to end, and what they leave.

They are spawned, not forked: an accelerator or a thread does not outlive a fork. Each reads the task from a file, with
memory-mapped arrays as their names, so that nothing large is copied and no weights are shared.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from drivesim import console
from drivesim.errors import InputError
from drivesim.training.interruption import HeldSignals
from drivesim.training.launch import is_launched, make_fabric
from drivesim.training.settings import TrainingConfig

_JOIN_S = 0.5
_SENTENCE = f"{InputError.__module__}.{InputError.__qualname__}: "
_turns_left = 0


def run_in_processes(function: Callable[[Any], Any], order: Any, config: TrainingConfig) -> Any:
    """Call ``function(order)`` in every process of this machine and return what the first one returned.

    Ctrl-C and SIGTERM are passed on; the function is expected to return soon after. A second one ends all at once.

    Raises:
        InputError: One of the processes raised it, or the settings do not say how machines find each other.
        RuntimeError: One of the processes failed; its traceback is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="drivesim-run-") as folder:
        path = Path(folder) / "order.pickle"
        with path.open("wb") as file:
            _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump((function, order))
        environment, queue = _addresses(config), multiprocessing.get_context("spawn").SimpleQueue()
        context = start_processes(
            _run_one,
            args=(path, environment, config.devices, queue),
            nprocs=config.devices,
            join=False,
            start_method="spawn",
        )
        _wait_for(context)
    if queue.empty():
        raise RuntimeError("the training processes ended without a result")
    return queue.get()


def _wait_for(context: Any) -> None:
    with HeldSignals() as held:
        is_told = False
        try:
            while not context.join(timeout=_JOIN_S):
                if held.received is not None and not is_told:
                    is_told = True
                    _tell(context)
            held.raise_received()
        except (ProcessRaisedException, ProcessExitedException) as error:
            held.raise_received()  # it may have been too early for them
            _, is_found, sentence = str(error).rpartition(_SENTENCE)
            if is_found:
                raise InputError(" ".join(sentence.split())) from None
            raise RuntimeError(f"a training process failed: {str(error).strip()}") from error
        except BaseException:  # a second signal
            for process in context.processes:
                process.kill()
            raise


def _tell(context: Any) -> None:
    for process in context.processes:
        if process.is_alive():
            process.terminate()


def _run_one(local_rank: int, path: Path, environment: dict[str, str], num_local: int, queue: Any) -> None:
    """Be one process of a run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one passes Ctrl-C on
    os.environ.update(environment, LOCAL_RANK=str(local_rank))
    torch.set_num_threads(max(1, torch.get_num_threads() // num_local))
    with path.open("rb") as file:
        function, order = pickle.load(file)  # written by the process that started this one
    result = function(order)
    if local_rank == 0:
        queue.put(result)
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _addresses(config: TrainingConfig) -> dict[str, str]:
    """Return the environment by which the processes find each other."""
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    if config.num_nodes == 1:
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    missing = [name for name in names if name not in os.environ]
    if missing:
        raise InputError(
            f"training.num_nodes={config.num_nodes} needs {', '.join(missing)} in the environment of each machine; "
            "set them, or start the command on each by torchrun"
        )
    return {name: os.environ[name] for name in names}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class _Pickler(pickle.Pickler):
    """Writes memory-mapped arrays as the names of their files."""

    def reducer_override(self, value: Any) -> Any:
        base: object = getattr(value, "base", None)
        if type(value) is not np.memmap or not isinstance(base, mmap.mmap):  # a view has no file of its own
            return NotImplemented
        order = "C" if value.flags.c_contiguous else "F"
        return np.memmap, (value.filename, value.dtype, "r", value.offset, value.shape, order)


def take_turns(config: TrainingConfig) -> None:
    """Let the first process prepare what the others then find on the disk, where torchrun or SLURM started them.

    After the first process of all come the first ones of the other machines, then the rest, which print nothing.
    :func:`end_turn` must follow.

    Raises:
        InputError: As :func:`is_launched`.
    """
    global _turns_left
    if config.num_processes == 1 or not is_launched(config):
        return
    fabric = make_fabric(config)
    fabric.launch()
    if fabric.global_rank > 0:
        console.mute()
    turn = 0 if fabric.global_rank == 0 else 1 if fabric.local_rank == 0 else 2
    for _ in range(turn):
        distributed.barrier()
    _turns_left = 2 - turn


def end_turn() -> None:
    """Let the next processes have their turn."""
    global _turns_left
    for _ in range(_turns_left):
        distributed.barrier()
    _turns_left = 0
