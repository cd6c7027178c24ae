"""Held-out material: recordings of roads that no training saw, and instants at which the model takes over.

Their road seeds are those that ``drivesim/reference/seeds.py`` keeps for published figures, or for validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim import console
from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED, LAST_HELD_OUT_SEED
from drivesim.reference.simulator import draw_spec
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.scene.types import Scene, front_camera

BoolArray = NDArray[np.bool_]
RATE_HZ = 6.0  # of recorded roads, which the front camera sees
IsEligible = Callable[["HeldOutScene"], BoolArray]


@dataclass(kw_only=True, slots=True)
class HeldOutScene:
    """A recording with what the reference world knows about it."""

    scene: Scene
    is_off_road: BoolArray  # (T,)
    is_collision: BoolArray  # (T,)

    def frames(self, first: int, count: int) -> NDArray[np.uint8]:
        """Return ``count`` frames from index ``first`` on, (count, H, W, 3)."""
        return np.stack([self.scene.frames[index] for index in range(first, first + count)])

    def twist(self, first: int, count: int) -> NDArray[np.float32]:
        """Return the (count, 2) motion into the frames from index ``first`` on."""
        chosen = slice(first, first + count)
        columns = [self.scene.speed_mps[chosen], self.scene.yaw_rate_radps[chosen]]
        return np.stack(columns, axis=-1).astype(np.float32)


@dataclass(kw_only=True, slots=True, frozen=True)
class Start:
    """The last recorded frame before the model takes over."""

    scene_index: int
    frame_index: int


def last_frames(scenes: Sequence[HeldOutScene], starts: Sequence[Start]) -> NDArray[np.uint8]:
    """Return each start's own frame, (B, H, W, 3)."""
    return np.stack([scenes[start.scene_index].frames(start.frame_index, 1)[0] for start in starts])


def check_seeds(first_seed: int, num_seeds: int) -> str:
    """Return what roads of these seeds are for, in words that stand beside every figure.

    Raises:
        InputError: seeds that are neither kept for published figures nor for validation.
    """
    last_seed = first_seed + num_seeds - 1
    if FIRST_HELD_OUT_SEED <= first_seed <= last_seed <= LAST_HELD_OUT_SEED:
        return "held-out roads"
    if FIRST_VALIDATION_SEED <= first_seed <= last_seed < FIRST_HELD_OUT_SEED:
        return "validation roads, not published figures"
    raise InputError(
        f"seeds {first_seed}..{last_seed} are not held out: "
        f"choose them within {FIRST_HELD_OUT_SEED}..{LAST_HELD_OUT_SEED}, or for validation within "
        f"{FIRST_VALIDATION_SEED}..{FIRST_HELD_OUT_SEED - 1}"
    )


def add_seed_option(parser: Any) -> None:
    """Add ``--seed``, the first of the held-out roads, to a parser or a group of exclusive options."""
    parser.add_argument(
        "--seed",
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help=f"first road seed: {FIRST_HELD_OUT_SEED} or above, below it for validation",
    )


def last_seed_of_kind(first_seed: int) -> int:
    """Return the last seed that serves the same purpose as a first one.

    Raises:
        InputError: a seed that training may use.
    """
    check_seeds(first_seed, 1)
    return LAST_HELD_OUT_SEED if first_seed >= FIRST_HELD_OUT_SEED else FIRST_HELD_OUT_SEED - 1


def check_horizon(horizon: int, *, num_context_frames: int, num_frames: int) -> None:
    """Refuse a horizon that no recording of ``num_frames`` frames can be compared with.

    Raises:
        InputError: it is below 1 or reaches beyond the log.
    """
    if horizon < 1:
        raise InputError(f"--horizon must be at least 1, got {horizon}")
    longest = num_frames - num_context_frames
    if horizon > longest:
        raise InputError(
            f"--horizon {horizon} reaches beyond the log: the recordings have {num_frames} frames, "
            f"{num_context_frames} of them are context; ask for at most {max(longest, 0)}, "
            "or record longer roads (--frames)"
        )


def record_held_out(*, first_seed: int, num_scenes: int, num_frames: int) -> list[HeldOutScene]:
    """Record one scene per seed, each with a driver drawn from good to reckless.

    Raises:
        InputError: seeds that training may use.
    """
    check_seeds(first_seed, num_scenes)
    scenes = []
    with console.progress_bar("recording held-out roads", num_scenes) as bar:
        for seed in range(first_seed, first_seed + num_scenes):
            recording = record(
                draw_spec(seed),
                driver=None,
                num_frames=num_frames,
                driver_seed=seed,
                rate_hz=RATE_HZ,
                camera=front_camera(),
            )
            scenes.append(
                HeldOutScene(
                    scene=recording.scene,
                    is_off_road=np.asarray(recording.is_off_road, dtype=bool),
                    is_collision=np.asarray(recording.is_collision, dtype=bool),
                )
            )
            bar.advance()
    return scenes


def embedded_scenes(names: Sequence[str]) -> list[HeldOutScene]:
    """Load scenes of the embedded data set by name; "all" takes every one."""
    dataset = embedded_dataset()
    chosen = dataset.scene_names() if list(names) == ["all"] else list(names)
    return [without_labels(dataset.load(name)) for name in chosen]


def without_labels(scene: Scene) -> HeldOutScene:
    """Wrap a scene without noted collisions; off the road is where the rear axle leaves the drivable area."""
    is_off_road = np.zeros(len(scene), dtype=bool)
    if scene.drivable is not None:
        is_off_road = ~scene.drivable.contains(scene.xy_m)
    return HeldOutScene(scene=scene, is_off_road=is_off_road, is_collision=np.zeros(len(scene), dtype=bool))


def draw_starts(
    scenes: Sequence[HeldOutScene],
    count: int,
    *,
    num_context_frames: int,
    horizon: int,
    is_eligible: IsEligible,
    seed: int = 0,
    may_be_fewer: bool = False,
) -> list[Start]:
    """Draw ``count`` different starts, spread evenly over the scenes.

    Args:
        scenes: What to draw from.
        count: How many starts.
        num_context_frames: Frames that must lie before, the start's own included.
        horizon: Frames that must follow.
        is_eligible: Which frames of a scene, (T,) bool, may be starts.
        seed: Of the draw.
        may_be_fewer: Take what there is where fewer frames are eligible, even none.

    Raises:
        InputError: fewer eligible frames than asked for, unless there may be.
    """
    rng = np.random.default_rng(seed)
    queues = []
    for scene_index, scene in enumerate(scenes):
        is_possible = is_eligible(scene).copy()
        is_possible[: num_context_frames - 1] = False
        is_possible[max(0, len(is_possible) - horizon) :] = False
        frame_indices = rng.permutation(np.flatnonzero(is_possible)).tolist()
        queues.append([Start(scene_index=scene_index, frame_index=index) for index in frame_indices])
    available = sum(len(queue) for queue in queues)
    if available < count and may_be_fewer:
        count = available
    if available < count:
        raise InputError(
            f"{count} starts were asked for, but only {available} frames of {len(scenes)} scenes fit: "
            "record more scenes (--num-scenes) or ask for fewer (--starts)"
        )
    starts: list[Start] = []
    while len(starts) < count:
        starts += [queue.pop() for queue in queues if queue]
    return starts[:count]


def is_moving(scene: HeldOutScene, *, min_speed_mps: float = 1.0) -> BoolArray:
    """Tell for each frame whether the car moves in the next step; a standing picture tells nothing."""
    ahead_mps = np.append(scene.scene.speed_mps[1:], 0.0)
    return np.asarray(ahead_mps >= min_speed_mps)


def is_drivable(scene: HeldOutScene, *, min_speed_mps: float) -> BoolArray:
    """Tell for each frame whether the car is fast enough, on the road and has not collided so far."""
    is_intact = ~np.logical_or.accumulate(scene.is_collision)
    return np.asarray((scene.scene.speed_mps >= min_speed_mps) & ~scene.is_off_road & is_intact)
