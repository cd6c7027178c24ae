"""What fine-tuning learns from and what it is judged by: the clips of a recorded data set, split by time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim import console
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.scene.nuscenes import NuScenesDataset, open_dataset
from drivesim.scene.rectification import Fleet
from drivesim.scene.types import Camera
from drivesim.training.data import MOTION_ARRAYS, RecordedClips
from drivesim.training.fine_tuning_config import FineTuningConfig
from drivesim.training.open_loop import MIN_SPEED_MPS
from drivesim.training.scene_source import RATE_HZ, Windows, camera_groups, convert_segments
from drivesim.training.time_split import Segment, TimeSplit, split_by_time
from drivesim.training.token_plan import fingerprint

HORIZON = 12  # frames that are imagined of a held-out window
JUDGED_STEP = 6  # at which weights are compared
CONTEXT = 4  # frames that a model is shown of a window
MIN_CLIP = 12  # frames
COVERED_SHARE = 0.75  # of the frames, that clips should reach
SMALL_FRAMES = 10_000  # below that clips overlap, so that few frames are as many beginnings as they can
STRETCH = 0.03  # of pictures, from which on it is said
MOST_STRETCH = 2.0


@dataclass(kw_only=True, slots=True)
class FineTuningData:
    """Clips to learn from, windows to judge by, and the camera that took both."""

    train: RecordedClips
    held_out: RecordedClips
    camera: Camera
    facts: dict[str, Any]  # for fidelity.json

    def checked(self, count: int) -> RecordedClips:
        """Return up to ``count`` held-out windows in which the car moves, spread evenly over all, in memory."""
        moving = np.flatnonzero(is_moving(self.held_out))
        chosen = moving[np.unique(np.linspace(0, len(moving) - 1, min(count, len(moving))).astype(int))]
        return rows_of(self.held_out, chosen, CONTEXT + JUDGED_STEP)


def rows_of(clips: RecordedClips, rows: NDArray[np.int64], num_frames: int) -> RecordedClips:
    """Return the first frames of some clips, in memory."""
    arrays: dict[str, Any] = {
        name: np.array(getattr(clips, name)[rows, :num_frames]) for name in ("frames", *MOTION_ARRAYS)
    }
    return replace(clips, **arrays)


def is_moving(windows: RecordedClips) -> NDArray[np.bool_]:
    """Tell in which windows the car moves where the context ends."""
    return np.asarray(windows.twist[:, CONTEXT, 0] > MIN_SPEED_MPS)


def open_data(config: FineTuningConfig, folder: Path) -> FineTuningData:
    """Return the clips of a data set, decoding them into ``folder`` if they are not there yet.

    Raises:
        InputError: no such data set, too little driving, cameras that differ too much, or a held-out part in which
            the car stands.
    """
    dataset = open_data_set(config)
    lengths = _lengths(dataset, config.scenes or dataset.scene_names())
    split = split_of(config, lengths)
    fleet = Fleet()
    train = _clips(dataset, split.train, folder / "train", _train_windows(config, split), fleet)
    held_out = _clips(dataset, split.held_out, folder / "held-out", _held_out_windows(config, split), fleet)
    if not is_moving(held_out).any():
        raise InputError(
            f"in the held-out part of {config.data} ({split.words}) the car never moves, and nothing can be judged by "
            "that; name other scenes with fine_tuning.scenes=[...]"
        )
    camera = camera_groups(train)[0][0]
    facts = _facts(split, train, held_out, camera)
    return FineTuningData(train=train, held_out=held_out, camera=camera, facts=facts)


def _train_windows(config: FineTuningConfig, split: TimeSplit) -> Windows:
    length = clip_length(split.train, most=config.frames_per_clip)
    is_small = sum(len(segment) for segment in split.train) < SMALL_FRAMES
    return Windows(frames_per_clip=length, stride=length // 3 if is_small else length)


def _held_out_windows(config: FineTuningConfig, split: TimeSplit) -> Windows:
    length = min(CONTEXT + HORIZON, max(len(segment) for segment in split.held_out))
    room = sum(max(0, len(segment) - length + 1) for segment in split.held_out)
    return Windows(frames_per_clip=length, stride=max(1, -(-room // config.num_windows)))


def open_data_set(config: FineTuningConfig) -> NuScenesDataset:
    """Open the data set, of the version that is named or the only one there is.

    Raises:
        InputError: there is no such folder, or none or several versions in it.
    """
    root = Path(config.data).expanduser()
    if not root.is_dir():
        near = sorted(path.name for path in root.parent.glob("*/")) if root.parent.is_dir() else []
        hint = f"; {root.parent} holds {', '.join(near[:5])}" if near else ""
        raise InputError(
            f"data={config.data} is not a folder; name one that `drivesim data import` made{hint}"
        )
    versions = sorted(path.parent.name for path in root.glob("*/scene.json"))
    if not config.version and len(versions) > 1:
        raise InputError(
            f"{root} holds {', '.join(versions)}; choose one with fine_tuning.version={versions[0]}"
        )
    return open_dataset(root, config.version or (versions[0] if versions else "v1.0-mini"))


def split_of(config: FineTuningConfig, lengths: Sequence[tuple[str, int]]) -> TimeSplit:
    """Return what is learned from and what is held out.

    Raises:
        InputError: there is too little driving for both.
    """
    total_s = sum(count for _, count in lengths) / RATE_HZ
    if total_s < config.min_length_s:
        raise InputError(
            f"{config.data} holds {total_s:.1f} s of driving in {len(lengths)} scenes, and fine-tuning needs "
            f"{config.min_length_s:g} s to learn from some and be judged by the rest; record more"
        )
    gap_frames = round(config.gap_s * RATE_HZ)
    split = split_by_time(lengths, share=config.held_out_share, gap_frames=gap_frames)
    longest = max(len(segment) for segment in split.held_out)
    if longest < CONTEXT + JUDGED_STEP or not split.train or max(map(len, split.train)) < MIN_CLIP:
        raise InputError(
            f"the {len(lengths)} scenes of {config.data} are too short: {MIN_CLIP} frames in a row are needed to learn "
            f"from and {CONTEXT + JUDGED_STEP} to be judged by, held out are {longest}; record longer ones, or raise "
            "fine_tuning.held_out_share"
        )
    return split


def clip_length(segments: Sequence[Segment], *, most: int) -> int:
    """Return the longest clips, up to ``most`` frames, that still reach nearly all of the material."""
    total = sum(len(segment) for segment in segments)
    for length in range(most, MIN_CLIP, -1):
        covered = sum(len(segment) for segment in segments if len(segment) >= length)
        if covered >= COVERED_SHARE * total:
            return length
    return MIN_CLIP


def _lengths(dataset: NuScenesDataset, names: Sequence[str]) -> list[tuple[str, int]]:
    """Return the scenes that can be read, with their frames."""
    lengths = []
    for name in names:
        try:
            lengths.append((name, dataset.summary(name, rate_hz=RATE_HZ).num_frames))
        except InputError as error:
            console.warn(f"scene {name} left out: {error}")
    return lengths


def _clips(
    dataset: NuScenesDataset, segments: Sequence[Segment], path: Path, windows: Windows, fleet: Fleet
) -> RecordedClips:
    """Return the clips of some segments, decoded now or before."""
    facts = {
        "dataroot": str(dataset.dataroot),
        "version": dataset.version,
        "tables": fingerprint(dataset.dataroot, dataset.version),
        "segments": [asdict(segment) for segment in segments],
        **asdict(windows),
    }
    remove_abandoned(path)
    if not path.exists():
        with console.progress_bar(f"reading scenes ({path.name})", len(segments)) as bar:
            return convert_segments(
                dataset, segments, path, windows, fleet=fleet, facts=facts, on_progress=bar.update
            )
    known = json.loads((path / "set.json").read_text(encoding="utf-8"))
    if any(known.get(name) != value for name, value in facts.items()):
        raise InputError(
            f"{path} was made of other scenes than the run asks for, or of a data set that was made anew since; remove "
            "it, or choose another --out"
        )
    clips = RecordedClips.open(path)
    fleet.target = camera_groups(clips)[0][0]
    return clips


def _facts(split: TimeSplit, train: RecordedClips, held_out: RecordedClips, camera: Camera) -> dict[str, Any]:
    shifts = [json.loads((clips.path / "set.json").read_text()) for clips in (train, held_out)]
    stretch = camera.fx_px / camera.fy_px
    if max(stretch, 1 / stretch) > MOST_STRETCH:
        raise InputError(
            f"the pictures are stretched {max(stretch, 1 / stretch):.1f}-fold to fit {camera.width_px}x"
            f"{camera.height_px}; crop or pad them with `drivesim data import --fit`"
        )
    return {
        "train_s": round(sum(len(segment) for segment in split.train) / RATE_HZ, 1),
        "held_out_s": round(sum(len(segment) for segment in split.held_out) / RATE_HZ, 1),
        "held_out": split.words,
        "num_train_clips": len(train),
        "frames_per_clip": train.frames_per_clip,
        "num_windows": int(is_moving(held_out).sum()),
        "largest_camera_shift_px": max(known["largest_shift_px"] for known in shifts),
        "stretch": round(stretch, 4),
    }


def describe(facts: dict[str, Any], say: Callable[[str], None] = console.say) -> None:
    """Say what is learned from, what is held out, and what was done to the pictures."""
    say(
        f"learning from {facts['train_s']:g} s in {facts['num_train_clips']} clips of {facts['frames_per_clip']} "
        f"frames; held out: {facts['held_out']} ({facts['held_out_s']:g} s, {facts['num_windows']} windows)"
    )
    if abs(facts["stretch"] - 1) > STRETCH:
        say(
            f"pictures of another aspect ratio are stretched to the model's, by {facts['stretch']:.3f} in width; the "
            "camera's numbers follow"
        )
    if facts["largest_camera_shift_px"] > 0:
        say(
            f"the cameras differ; pictures were rectified by up to {facts['largest_camera_shift_px']:.1f} pixels"
        )
