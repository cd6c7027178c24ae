"""Batches of clips read ahead by worker processes, in an order that the seed alone decides.

What makes it fast: JPEGs far larger than the model's pictures are decoded at a part of their size (see
``FrameFiles``), a picture that several clips of a batch show is decoded once, and pictures cross from process to
process in shared memory that is laid out once. Workers keep the pictures they decoded last; data small enough to be
kept whole is decoded in the first passes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from drivesim.errors import InputError
from drivesim.scene.clips import ClipBatch, SceneClips, SkippedClip
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Scene
from drivesim.video import work_in_one_thread

NUM_KEPT_FRAMES = 1024  # in each process; 88 MB at 128x224
NUM_BATCHES_AHEAD = 2  # in each process


def clip_loader(
    scenes: Sequence[Scene],
    *,
    num_frames: int,
    stride: int = 1,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    num_kept_frames: int = NUM_KEPT_FRAMES,
) -> ClipLoader:
    """Return the windows of some scenes as batches; every ``iter`` of it is one pass over all of them.

    Args:
        scenes: recordings at one frame rate and one picture size; worker processes get them pickled.
        num_frames: frames per clip.
        stride: frames from the start of a clip to the start of the next.
        batch_size: clips per batch; the last one of a pass may be smaller, and so are those with bad pictures.
        num_workers: processes that read ahead; 0 reads in this one, when a batch is asked for.
        seed: of the order. The batches of pass ``n`` are the same however many processes there are.
        shuffle: draw the order anew in every pass; without it clips come scene by scene.
        num_kept_frames: decoded pictures that each process keeps at most.

    Raises:
        InputError: no scene is as long as a clip, or settings that cannot work.
    """
    if batch_size < 1 or num_workers < 0 or num_kept_frames < 0:
        raise InputError(
            "a loader needs batch_size >= 1 and num_workers, num_kept_frames >= 0, got "
            f"{batch_size}, {num_workers} and {num_kept_frames}"
        )
    # Processes get a copy.
    slim = [replace(scene, drivable=None, route_xy_m=None, agents=None) for scene in scenes]
    clips = SceneClips(slim, num_frames=num_frames, stride=stride, num_kept_frames=num_kept_frames)
    num_slots = num_workers * NUM_BATCHES_AHEAD + 1 if num_workers else 0  # one is being handed over
    order = _Order(len(clips), batch_size=batch_size, num_slots=num_slots, seed=seed if shuffle else None)
    return ClipLoader(clips, order, num_workers=num_workers)


class ClipLoader:
    """Iterate over it for the batches of one pass; :func:`clip_loader` makes it.

    A clip with a bad picture is left out of its batch and named there under ``skipped``, and once in ``skipped`` here.
    A batch without one good clip is left out.
    """

    def __init__(self, clips: SceneClips, order: _Order, *, num_workers: int) -> None:
        """Start the processes when the first batch is asked for; they stay for later passes."""
        self.skipped: list[SkippedClip] = []
        self._clips, self._order, self._num_workers = clips, order, num_workers
        self._slots = _shared(clips, order) if num_workers else None
        self._loader = DataLoader(
            _Batches(clips, self._slots),
            batch_size=None,
            sampler=order,
            num_workers=num_workers,
            worker_init_fn=_begin_worker if num_workers else None,
            multiprocessing_context="spawn" if num_workers else None,
            prefetch_factor=NUM_BATCHES_AHEAD if num_workers else None,
            persistent_workers=num_workers > 0,
        )

    def __len__(self) -> int:
        """Return the batches of a pass, those without a good clip among them."""
        return len(self._order)

    def __iter__(self) -> Iterator[ClipBatch]:
        """Yield the batches of the next pass.

        Raises:
            InputError: not one clip can be read, or a process was killed.
        """
        num_good, known = 0, {(item.scene_name, item.start) for item in self.skipped}
        for part in self._parts():
            self.skipped += [item for item in part.skipped if (item.scene_name, item.start) not in known]
            num_good += len(part.rows)
            if part.rows:
                yield self._batch(part)
        if num_good == 0:
            raise InputError(f"none of the clips can be read; {self.skipped[-1].reason}")

    def _parts(self) -> Iterator[_Part]:
        parts: Iterator[_Part] | None = None
        while True:
            try:
                parts = iter(self._loader) if parts is None else parts
                part = next(parts, None)
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                raise InputError(
                    f"one of {self._num_workers} processes that read pictures was killed, as happens when memory "
                    "or /dev/shm runs out; lower num_workers or batch_size and start again"
                ) from error
            if part is None:
                return
            yield part

    def _batch(self, part: _Part) -> ClipBatch:
        windows = [self._clips.windows[row] for row in part.rows]
        scenes = [self._clips.reader.scenes[index] for index, _ in windows]
        frames = part.frames
        if frames is None:
            assert self._slots is not None
            frames = self._slots[part.slot, : len(part.rows)].clone()  # the slot is used again
        return ClipBatch(
            frames_BTHWC=frames,
            twist_BTA=torch.from_numpy(part.twist),
            pose_BT3=torch.from_numpy(part.pose),
            cameras=[scene.camera for scene in scenes],
            scene_names=[scene.name for scene in scenes],
            starts=[start for _, start in windows],
            skipped=part.skipped,
        )


@dataclass(kw_only=True, slots=True)
class _Request:
    """The clips of a batch, and the place in shared memory where its pictures belong, if there is one."""

    rows: list[int]
    slot: int


class _Order(Sampler[_Request]):
    """Which clips make which batch, pass after pass; slots are taken in turns."""

    def __init__(self, num_clips: int, *, batch_size: int, num_slots: int, seed: int | None) -> None:
        self.batch_size, self.num_slots = batch_size, num_slots
        self._num_clips, self._seed, self._pass = num_clips, seed, 0

    def __len__(self) -> int:
        return -(-self._num_clips // self.batch_size)

    def __iter__(self) -> Iterator[_Request]:
        rows = np.arange(self._num_clips)
        if self._seed is not None:
            rows = np.random.default_rng([self._seed, self._pass]).permutation(rows)
        self._pass += 1
        for number in range(len(self)):
            part = rows[number * self.batch_size : (number + 1) * self.batch_size].tolist()
            yield _Request(rows=part, slot=number % max(1, self.num_slots))


@dataclass(kw_only=True, slots=True)
class _Part:
    """A batch as it leaves a process."""

    rows: list[int]  # of the good clips
    slot: int
    frames: Tensor | None = None  # None: they lie in the slot
    twist: NDArray[np.float32]
    pose: FloatArray
    skipped: list[SkippedClip] = field(default_factory=list)


class _Batches(Dataset[_Part]):
    """Batches by request."""

    def __init__(self, clips: SceneClips, slots: Tensor | None) -> None:
        self._clips, self._slots = clips, slots

    def __getitem__(self, request: _Request) -> _Part:
        if self._slots is None:
            place = torch.empty(_batch_shape(self._clips, len(request.rows)), dtype=torch.uint8)
        else:
            place = self._slots[request.slot]
        frames, windows, reader = place.numpy(), self._clips.windows, self._clips.reader
        rows: list[int] = []
        skipped: list[SkippedClip] = []
        for row in request.rows:
            bad = reader.read_into(frames[len(rows)], *windows[row])
            if bad is None:
                rows.append(row)
            else:
                skipped.append(bad)
        return _Part(
            rows=rows,
            slot=request.slot,
            frames=place[: len(rows)] if self._slots is None else None,
            twist=np.array([reader.twist(*windows[row]) for row in rows]),
            pose=np.array([reader.pose(*windows[row]) for row in rows]),
            skipped=skipped,
        )


def _batch_shape(clips: SceneClips, num_clips: int) -> tuple[int, ...]:
    camera = clips.reader.scenes[0].camera
    return (num_clips, clips.reader.num_frames, camera.height_px, camera.width_px, 3)


def _shared(clips: SceneClips, order: _Order) -> Tensor:
    """Return room for the batches that are under way, which all processes see."""
    shape = (order.num_slots, *_batch_shape(clips, order.batch_size))
    try:
        return torch.empty(shape, dtype=torch.uint8).share_memory_()
    except RuntimeError as error:
        raise InputError(
            f"there is no room for {order.num_slots} batches of {order.batch_size} clips in shared memory "
            "(/dev/shm); lower batch_size or num_workers"
        ) from error


def _begin_worker(_number: int) -> None:
    torch.set_num_threads(1)
    work_in_one_thread()
