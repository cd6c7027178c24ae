"""The figures of short-term fidelity: clips over the horizon, motion read from them, and four manoeuvres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from benchmarks import maneuvers
from benchmarks.control import (
    Driven,
    ManeuverFrames,
    MotionReader,
    add_control_rows,
    add_motion_rows,
    add_trajectory_rows,
)
from benchmarks.fidelity_page import TARGETS
from benchmarks.held_out import (
    HeldOutScene,
    IsEligible,
    Start,
    check_horizon,
    draw_starts,
    is_drivable,
    is_moving,
    last_frames,
)
from benchmarks.maneuvers import TrueFrames, drive_reference
from benchmarks.open_loop import Images, OpenLoop, Twists, future
from benchmarks.pictures import (
    Clips,
    Tokenized,
    add_learned_rows,
    add_picture_rows,
    check_spread,
    tokenized,
)
from benchmarks.report import Report
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics
from drivesim.metrics.image import Extractor, FeatureNetwork
from drivesim.scene.types import Scene
from drivesim.video import side_by_side, with_label
from drivesim.world_model.world_model import WorldModel

HORIZON, NUM_STARTS = 24, 64
NAMED_HORIZONS = (1, 3, 6, 12, 24)
SHEET_ROWS = 6
SHEET_STEP = 3  # of the manoeuvres; later the view is one that nobody has seen


@dataclass(kw_only=True, slots=True)
class FidelityConfig:
    """What is measured, and from how many starts."""

    horizon: int = HORIZON
    num_starts: int = NUM_STARTS
    takes_fewer: bool = False  # where the recordings have fewer; else that is refused
    batch_size: int = 8
    seed: int = 0
    has_map: bool = True  # whether the model is shown the map, as it is in the environment
    has_markings: bool = True  # and what is painted on the road
    has_agents: bool = True  # and where others were at the start
    networks: Mapping[Extractor, FeatureNetwork] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse no steps, no starts and empty batches."""
        if self.horizon < 1:
            raise InputError(f"--horizon must be at least 1, got {self.horizon}")
        if self.num_starts < 1 or self.batch_size < 1:
            raise InputError(
                f"--starts and --batch must be at least 1, got {self.num_starts} and {self.batch_size}"
            )

    @property
    def horizons(self) -> list[int]:
        """Return the steps at which pictures are compared."""
        return sorted({*(step for step in NAMED_HORIZONS if step < self.horizon), self.horizon})


ROW_NAMES = ("recorded", "imagined")


@dataclass(kw_only=True, slots=True)
class Measured:
    """The numbers, and pictures to look at beside them."""

    report: Report
    clips: Clips
    maneuver_frames: ManeuverFrames | None  # None where no start is fit for steering


def measure(
    model: WorldModel,
    scenes: Sequence[HeldOutScene],
    config: FidelityConfig,
    *,
    inverse_dynamics: InverseDynamics | None = None,
    true_frames_fn: TrueFrames = drive_reference,
) -> Measured:
    """Measure a world model on held-out scenes.

    Args:
        model: In evaluation mode.
        scenes: Recordings that it never saw.
        config: What to measure.
        inverse_dynamics: Reads motion from frames; without it there are no trajectory errors.
        true_frames_fn: Shows what the ground truth looks like under a manoeuvre.
    """
    open_loop, reader = instruments(model, scenes[0].scene, config, inverse_dynamics)
    report = Report(title="fidelity", targets=TARGETS)
    starts = moving_starts(scenes, config, open_loop)
    check_spread(config.networks, num_starts=len(starts), horizon=config.horizon)
    clips, ceiling, twist_BTA = _logged_clips(open_loop, scenes, starts, config)
    add_picture_rows(report, clips, ceiling, config.horizons)
    add_learned_rows(report, clips, config.horizons, config.networks)
    if inverse_dynamics is not None:
        driven = Driven(twist=twist_BTA.astype(np.float64), groups=clips.groups, rate_hz=reader.rate_hz)
        _add_motion(report, clips, driven, reader, config)
    is_eligible = partial(is_drivable, min_speed_mps=maneuvers.MIN_STEERING_SPEED_MPS)
    steered = _starts(scenes, config, open_loop, is_eligible=is_eligible)
    imagined = None
    if steered:
        imagined, true = _maneuver_frames(open_loop, scenes, steered, true_frames_fn)
        add_control_rows(report, imagined, reader)
        add_control_rows(report, true, reader, suffix="_true_frames")
    report.facts |= {"starts": len(starts), "starts_of_manoeuvres": len(steered)}
    return Measured(report=report, clips=clips, maneuver_frames=imagined)


def instruments(
    model: WorldModel, scene: Scene, config: FidelityConfig, inverse_dynamics: InverseDynamics | None
) -> tuple[OpenLoop, MotionReader]:
    """Return the model as it is driven, and what reads its frames."""
    open_loop = OpenLoop(
        model=model,
        camera=scene.camera,
        batch_size=config.batch_size,
        seed=config.seed,
        has_map=config.has_map,
        has_markings=config.has_markings,
        has_agents=config.has_agents,
    )
    reader = MotionReader(camera=scene.camera, rate_hz=scene.rate_hz, inverse_dynamics=inverse_dynamics)
    return open_loop, reader


def moving_starts(scenes: Sequence[HeldOutScene], config: FidelityConfig, open_loop: OpenLoop) -> list[Start]:
    """Draw the starts for pictures and trajectories.

    Raises:
        InputError: the horizon reaches beyond the log, or too few frames are eligible.
    """
    longest = max(len(scene.scene) for scene in scenes)
    check_horizon(config.horizon, num_context_frames=open_loop.num_context_frames, num_frames=longest)
    starts = _starts(scenes, config, open_loop, is_eligible=is_moving)
    if not starts:
        raise InputError(
            f"in none of the {len(scenes)} scenes does the car move at an instant that {config.horizon} frames "
            "follow; choose other scenes or a shorter --horizon"
        )
    return starts


def _add_motion(
    report: Report, clips: Clips, driven: Driven, reader: MotionReader, config: FidelityConfig
) -> None:
    """Read the motion of the imagined world, and as floors of true frames and tokenized ones."""
    errors_m = {}
    worlds = {"": clips.imagined, "_true_frames": clips.target, "_tokenized_frames": clips.tokenized}
    for suffix, frames in worlds.items():
        reading = reader.read(np.concatenate([clips.last[:, None], frames], axis=1))
        errors_m[suffix] = add_motion_rows(report, reading, driven, horizons=config.horizons, suffix=suffix)
    add_trajectory_rows(report, errors_m, driven)


def _starts(
    scenes: Sequence[HeldOutScene],
    config: FidelityConfig,
    open_loop: OpenLoop,
    *,
    is_eligible: IsEligible,
) -> list[Start]:
    drawn = draw_starts(
        scenes,
        config.num_starts,
        num_context_frames=open_loop.num_context_frames,
        horizon=config.horizon,
        is_eligible=is_eligible,
        seed=config.seed,
        may_be_fewer=config.takes_fewer,
    )
    return sorted(drawn, key=lambda start: (start.scene_index, start.frame_index))


def _logged_clips(
    open_loop: OpenLoop,
    scenes: Sequence[HeldOutScene],
    starts: Sequence[Start],
    config: FidelityConfig,
) -> tuple[Clips, Tokenized, Twists]:
    """Imagine every start's future under its logged actions and under random ones; take it through the tokenizer."""
    target, twist_BTA = future(scenes, starts, config.horizon)
    random_BTA = np.stack(
        [
            maneuvers.random_twist(
                scenes[start.scene_index], start.frame_index, config.horizon, seed=config.seed + index
            )
            for index, start in enumerate(starts)
        ]
    )
    unmapped = None
    if config.has_map and any(scene.scene.drivable is not None for scene in scenes):
        blind = replace(open_loop, has_map=False)
        unmapped = blind.imagine(scenes, starts, twist_BTA, label="the same without a map")
    ceiling = tokenized(open_loop.model.tokenizer, target)
    clips = Clips(
        target=target,
        imagined=open_loop.imagine(scenes, starts, twist_BTA, label="under the logged actions"),
        randomly_driven=open_loop.imagine(scenes, starts, random_BTA, label="under random actions"),
        tokenized=ceiling.frames,
        last=last_frames(scenes, starts),
        groups=[start.scene_index for start in starts],
        unmapped=unmapped,
    )
    return clips, ceiling, twist_BTA


def _maneuver_frames(
    open_loop: OpenLoop,
    scenes: Sequence[HeldOutScene],
    starts: Sequence[Start],
    true_frames_fn: TrueFrames,
) -> tuple[ManeuverFrames, ManeuverFrames]:
    """Drive the four manoeuvres from every start, in the model and in the reference world."""
    plans = maneuvers.plan_all(scenes, starts)
    imagined = {}
    for name, planned in plans.items():
        twist_BTA = np.stack([maneuver.twist for maneuver in planned])
        imagined[name] = open_loop.imagine(scenes, starts, twist_BTA, label=f"imagined: {name}")
    true = maneuvers.true_frames(scenes, starts, plans, true_frames_fn=true_frames_fn)
    last = last_frames(scenes, starts)[:, None]
    worlds = [
        {name: np.concatenate([last, frames], axis=1) for name, frames in world.items()}
        for world in (imagined, true)
    ]
    return ManeuverFrames(**worlds[0]), ManeuverFrames(**worlds[1])


def sheet(measured: Measured, horizons: Sequence[int]) -> list[list[tuple[str, Images]]]:
    """Return labelled pictures, two rows per start: recorded above imagined."""
    clips = measured.clips
    rows: list[list[tuple[str, Images]]] = []
    for index in _spread(len(clips.target)):
        recorded = [(f"recorded +{h}", clips.target[index, h - 1]) for h in horizons]
        imagined = [(f"imagined +{h}", clips.imagined[index, h - 1]) for h in horizons]
        rows += [[("start", clips.last[index]), *recorded], [("start", clips.last[index]), *imagined]]
    return rows


def moving_pictures(measured: Measured, *, count: int = 3) -> list[Images]:
    """Return one picture per step: recorded above imagined, for a few starts side by side, the start first."""
    clips, pictures = measured.clips, []
    chosen = np.linspace(0, len(clips.target) - 1, min(count, len(clips.target))).astype(int)
    for step in range(clips.target.shape[1] + 1):
        shown = [
            [clips.last[index] if step == 0 else world[index, step - 1] for index in chosen]
            for world in (clips.target, clips.imagined)
        ]
        rows = [
            with_label(side_by_side(*frames), name) for name, frames in zip(ROW_NAMES, shown, strict=True)
        ]
        pictures.append(np.concatenate(rows))
    return pictures


def maneuver_sheet(driven: ManeuverFrames) -> list[list[tuple[str, Images]]]:
    """Return labelled pictures, one row per start: the four manoeuvres after three steps."""
    named = {"left": driven.left, "right": driven.right, "slow": driven.slow, "fast": driven.fast}
    rows: list[list[tuple[str, Images]]] = []
    for index in _spread(len(driven.left)):
        shown = [(f"{name} +{SHEET_STEP}", frames[index, SHEET_STEP]) for name, frames in named.items()]
        rows.append([("start", driven.left[index, 0]), *shown])
    return rows


def _spread(count: int) -> list[int]:
    """Return up to six of ``count`` indices, evenly spread."""
    return np.linspace(0, count - 1, min(SHEET_ROWS, count)).astype(int).tolist()
