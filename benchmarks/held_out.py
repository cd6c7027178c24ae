"""Held-out material: recordings of roads that no training saw, and instants at which the model takes over.

Their road seeds are those that ``drivesim/reference/seeds.py`` keeps for published figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivesim import console
from drivesim.errors import InputError
from drivesim.reference.behavior import record
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, LAST_HELD_OUT_SEED
from drivesim.reference.simulator import draw_spec
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.scene.types import Scene

BoolArray = NDArray[np.bool_]
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


def record_held_out(*, first_seed: int, num_scenes: int, num_frames: int) -> list[HeldOutScene]:
    """Record one scene per seed, each with a driver drawn from good to reckless.

    Raises:
        InputError: seeds outside the range kept for published figures.
    """
    last_seed = first_seed + num_scenes - 1
    if not FIRST_HELD_OUT_SEED <= first_seed <= last_seed <= LAST_HELD_OUT_SEED:
        raise InputError(
            f"seeds {first_seed}..{last_seed} are not held out: "
            f"choose them within {FIRST_HELD_OUT_SEED}..{LAST_HELD_OUT_SEED}"
        )
    scenes = []
    with console.progress_bar("recording held-out roads", num_scenes) as bar:
        for seed in range(first_seed, first_seed + num_scenes):
            recording = record(draw_spec(seed), driver=None, num_frames=num_frames, driver_seed=seed)
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
) -> list[Start]:
    """Draw ``count`` different starts, spread evenly over the scenes.

    Args:
        scenes: What to draw from.
        count: How many starts.
        num_context_frames: Frames that must lie before, the start's own included.
        horizon: Frames that must follow.
        is_eligible: Which frames of a scene, (T,) bool, may be starts.
        seed: Of the draw.

    Raises:
        InputError: fewer eligible frames than asked for.
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
