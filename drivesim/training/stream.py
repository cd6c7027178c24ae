"""Endless recordings of the reference world, made by worker processes while training runs; nothing is stored.

Clip ``n`` of a stream depends on ``n`` and the stream's seed alone, never on how many processes there are or which is
faster, so a run that was killed goes on with the same clips. Nothing here imports torch or, outside the worker
processes, the reference world.
"""

from __future__ import annotations

import signal
import traceback
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import prod
from multiprocessing import connection, get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.scene.types import front_camera
from drivesim.training.balance import BalanceConfig
from drivesim.training.data import MOTION_ARRAYS, RecordedClips
from drivesim.training.drive_orders import ClipOrigin, DriveOrder

RATE_HZ = 6.0
_JOIN_S = 5.0
_STREAM_WORD = 0x57EA  # keeps the chance of streams apart from that of batches


@dataclass(kw_only=True, slots=True)
class StreamConfig:
    """How recordings are streamed to training. A clip of 48 frames takes 4 MB of the queue."""

    num_workers: int = 2  # recording processes of each training process
    frames_per_clip: int = 48
    clips_per_drive: int = 2  # more share the cost of painting a world, fewer are more different
    num_queued_clips: int = 16  # recorded ahead, over all workers
    first_seed: int = 0  # of the roads; drivesim/reference/seeds.py says which seeds are for what
    last_seed: int = FIRST_VALIDATION_SEED - 1
    balance: BalanceConfig = field(default_factory=BalanceConfig)

    def __post_init__(self) -> None:
        """Refuse empty streams and road seeds that are kept for validation and benchmarks."""
        if min(self.num_workers, self.clips_per_drive, self.num_queued_clips, self.frames_per_clip - 3) < 1:
            raise ValueError(
                "a stream needs num_workers, clips_per_drive, num_queued_clips >= 1 and frames_per_clip >= 4"
            )
        if not 0 <= self.first_seed <= self.last_seed < FIRST_VALIDATION_SEED:
            raise ValueError(
                f"first_seed and last_seed of a stream must stay in 0..{FIRST_VALIDATION_SEED - 1} and in order, "
                f"got {self.first_seed} and {self.last_seed}"
            )


@dataclass(kw_only=True, slots=True)
class StreamedClips(RecordedClips):
    """Clips in memory, in the form of recorded ones, and where each comes from."""

    path: Path = Path("stream")  # no folder: nothing is stored
    origins: list[ClipOrigin] = field(default_factory=list)


class ClipStream:
    """Batches of clips without end; use it as a context manager, so that its processes end with it.

    The processes record ahead until the queue is full and wait then. They also end when this process does.
    """

    def __init__(
        self,
        config: StreamConfig,
        *,
        batch_size: int,
        seed: int = 0,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Describe the stream; entering it starts the processes.

        Args:
            config: how to record.
            batch_size: clips in a batch.
            seed: of all chance.
            start_step: number of the first batch to be made, as if those before it had been taken.
            rank: number of this training process; each sees clips of its own.
            world_size: how many training processes there are.
        """
        self._config, self._batch_size = config, batch_size
        self._order = DriveOrder(
            seed_words=[seed, rank, world_size, _STREAM_WORD],
            first_seed=config.first_seed,
            last_seed=config.last_seed,
            clips_per_drive=config.clips_per_drive,
            frames_per_clip=config.frames_per_clip,
            balance=config.balance,
        )
        self._next_clip = start_step * batch_size
        self._workers: list[_Worker] = []
        self._close = weakref.finalize(self, _stop, self._workers)

    def __enter__(self) -> ClipStream:
        """Start the processes.

        Raises:
            InputError: the reference world is not installed here.
        """
        check_reference_world()
        count = self._config.num_workers
        num_slots = max(2, -(-self._config.num_queued_clips // count))
        for index in range(count):
            work = _Work(order=self._order, first_clip=self._next_clip, index=index, num_workers=count)
            self._workers.append(_Worker(work, num_slots))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes; what they have ready is dropped."""
        self.close()

    def close(self) -> None:
        """End the processes, as leaving the context does."""
        self._close()

    def __iter__(self) -> ClipStream:
        """Return itself."""
        return self

    def __next__(self) -> StreamedClips:
        """Return the next batch: frames (B, T, H, W, 3) uint8 and the motion, all of its own memory.

        Raises:
            InputError: a process died, or cannot record what was asked for.
        """
        if not self._workers:
            raise RuntimeError("the stream is not open; use it as a context manager")
        frames = np.empty((self._batch_size, *_clip_shape(self._config.frames_per_clip)), np.uint8)
        recorded = []
        for row in range(self._batch_size):
            drive = (self._next_clip + row) // self._config.clips_per_drive
            recorded.append(self._workers[drive % len(self._workers)].take(frames[row]))
        self._next_clip += self._batch_size
        motion: dict[str, Any] = {
            name: np.stack([clip.motion[name] for clip in recorded]) for name in MOTION_ARRAYS
        }
        return StreamedClips(
            frames=frames, rate_hz=RATE_HZ, origins=[clip.origin for clip in recorded], **motion
        )


def check_reference_world() -> None:
    """Raise InputError unless what the reference world is made of is installed."""
    missing = [name for name in ("highway_env", "gymnasium", "cv2") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"recordings cannot be streamed here, as {', '.join(missing)} cannot be imported; install the package "
            "with its dependencies, or record elsewhere and train on the recorded clips"
        )


@dataclass(kw_only=True, slots=True)
class _Work:
    order: DriveOrder
    first_clip: int
    index: int  # of the worker
    num_workers: int


@dataclass(kw_only=True, slots=True)
class _Recorded:
    slot: int  # where its frames lie in the shared memory
    motion: dict[str, NDArray[np.generic]]
    origin: ClipOrigin


@dataclass(kw_only=True, slots=True)
class _Failure:
    text: str
    is_input_error: bool


class _Worker:
    """One recording process as the training process sees it: it may fill a slot of shared memory when handed it."""

    def __init__(self, work: _Work, num_slots: int) -> None:
        """Start the process and hand it all slots."""
        context = get_context("spawn")  # a process that uses threads or an accelerator must not be forked
        shape = (num_slots, *_clip_shape(work.order.frames_per_clip))
        memory = context.RawArray("B", prod(shape))
        self._slots = np.frombuffer(memory, np.uint8).reshape(shape)
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_record, args=(work, theirs, memory, shape), name=f"recorder-{work.index}", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        for slot in range(num_slots):
            self._connection.send(slot)

    def take(self, frames: NDArray[np.uint8]) -> _Recorded:
        """Copy the frames of this worker's next clip, hand its slot back, and return the rest."""
        message = self._receive()
        if isinstance(message, _Failure):
            if message.is_input_error:
                raise InputError(message.text)
            raise RuntimeError(f"{self._process.name} failed:\n{message.text}")
        frames[:] = self._slots[message.slot]
        with suppress(OSError):  # if it died meanwhile, what it still sent can be read
            self._connection.send(message.slot)
        return message

    def _receive(self) -> _Recorded | _Failure:
        connection.wait([self._connection, self._process.sentinel])
        with suppress(EOFError, OSError):
            if self._connection.poll():
                message: _Recorded | _Failure = self._connection.recv()
                return message
        self._process.join(_JOIN_S)
        raise InputError(
            f"{self._process.name}, which records clips, {_end_words(self._process.exitcode)}; "
            "lower num_workers of the stream and go on with --resume"
        )

    def stop(self) -> None:
        """Ask the process to end."""
        self._process.terminate()
        self._connection.close()

    def join(self) -> None:
        """Wait for the end of the process, and enforce it."""
        self._process.join(_JOIN_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join()
    workers.clear()


def _end_words(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was killed by {signal.Signals(-exit_code).name}, as happens when memory runs out"


def _clip_shape(num_frames: int) -> Sequence[int]:
    camera = front_camera()
    return (num_frames, camera.height_px, camera.width_px, 3)


def _record(work: _Work, pipe: connection.Connection, memory: Any, shape: Sequence[int]) -> None:
    """Record clips into the slots that come through the pipe until it closes; what a recording process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the training process, which ends this one
    try:
        from drivesim.reference.camera import draw_in_one_thread
        from drivesim.training.balanced_drives import BalancedDrives

        draw_in_one_thread()
        slots = np.frombuffer(memory, np.uint8).reshape(shape)
        drives = BalancedDrives(work.order)
        for clip in drives.clips(first_clip=work.first_clip, worker=work.index, num_workers=work.num_workers):
            slot = pipe.recv()
            pipe.send(_Recorded(slot=slot, motion=clip.draw_into(slots[slot]), origin=clip.origin))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the training process has ended or wants no more
    except InputError as error:
        pipe.send(_Failure(text=str(error), is_input_error=True))
    except Exception:
        pipe.send(_Failure(text=traceback.format_exc(), is_input_error=False))
