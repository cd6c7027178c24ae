"""How true is the imagined world? `python -m benchmarks.fidelity --out F.json` measures it on held-out roads.

The model sees recorded frames, then goes on alone under the recorded actions: picture quality beside
repeat-last-frame and the tokenizer's ceiling, the effect of actions, and motion read back from the pictures. Then
it is steered hard left and hard right, driven fast and slow, from the same starts; the reference world drives the
same manoeuvres, so that the instruments are tested on true frames in the same run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks import maneuvers
from benchmarks.control import (
    ManeuverFrames,
    MotionReader,
    add_control_rows,
    add_motion_rows,
)
from benchmarks.held_out import (
    HeldOutScene,
    IsEligible,
    Start,
    draw_starts,
    embedded_scenes,
    is_drivable,
    is_moving,
    record_held_out,
)
from benchmarks.maneuvers import TrueFrames, drive_reference
from benchmarks.open_loop import Images, OpenLoop, Twists, future
from benchmarks.pictures import (
    Clips,
    add_learned_rows,
    add_picture_rows,
    add_tokenizer_rows,
    tokenized,
)
from benchmarks.report import Report, machine_facts, run_command, write_sheet
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics, load_inverse_dynamics
from drivesim.metrics.image import Extractor
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel

NAMED_HORIZONS = (1, 3, 6)
SHEET_ROWS = 6
SHEET_STEP = 3  # of the manoeuvres; later the view is one that nobody has seen


@dataclass(kw_only=True, slots=True)
class FidelityConfig:
    """What is measured, and from how many starts."""

    horizon: int = 12
    num_starts: int = 64
    batch_size: int = 8
    seed: int = 0
    learned: dict[Extractor, Path | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse horizons that leave out the named ones, and no starts."""
        if self.horizon < max(NAMED_HORIZONS):
            raise InputError(f"--horizon must be at least {max(NAMED_HORIZONS)}, got {self.horizon}")
        if self.num_starts < 1 or self.batch_size < 1:
            raise InputError(
                f"--starts and --batch must be at least 1, got {self.num_starts} and {self.batch_size}"
            )

    @property
    def horizons(self) -> list[int]:
        """Return the steps at which pictures are compared."""
        return sorted({*NAMED_HORIZONS, self.horizon})


@dataclass(kw_only=True, slots=True)
class Measured:
    """The numbers, and pictures to look at beside them."""

    report: Report
    clips: Clips
    maneuver_frames: ManeuverFrames


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
    scene = scenes[0].scene
    open_loop = OpenLoop(model=model, camera=scene.camera, batch_size=config.batch_size, seed=config.seed)
    reader = MotionReader(camera=scene.camera, rate_hz=scene.rate_hz, inverse_dynamics=inverse_dynamics)
    report = Report(title="fidelity")
    starts = _starts(scenes, config, open_loop, is_eligible=is_moving)
    clips, true_twist = _logged_clips(open_loop, scenes, starts, config)
    add_picture_rows(report, clips, config.horizons)
    add_learned_rows(report, clips, config.horizons, config.learned)
    flat = clips.target[:, :: max(1, config.horizon // 4)]
    groups = np.repeat(clips.groups, flat.shape[1]).tolist()
    recorded = np.ascontiguousarray(flat.reshape(-1, *flat.shape[2:]))
    add_tokenizer_rows(report, recorded, tokenized(model.tokenizer, recorded), groups)
    if inverse_dynamics is not None:
        for suffix, shown in _shown_worlds(open_loop, clips).items():
            add_motion_rows(report, shown, true_twist, reader, groups=clips.groups, suffix=suffix)
    is_eligible = partial(is_drivable, min_speed_mps=maneuvers.MIN_STEERING_SPEED_MPS)
    steered = _starts(scenes, config, open_loop, is_eligible=is_eligible)
    imagined, true = _maneuver_frames(open_loop, scenes, steered, true_frames_fn)
    add_control_rows(report, imagined, reader)
    add_control_rows(report, true, reader, suffix="_true_frames")
    return Measured(report=report, clips=clips, maneuver_frames=imagined)


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
    )
    return sorted(drawn, key=lambda start: (start.scene_index, start.frame_index))


def _logged_clips(
    open_loop: OpenLoop, scenes: Sequence[HeldOutScene], starts: Sequence[Start], config: FidelityConfig
) -> tuple[Clips, Twists]:
    """Imagine every start's future under its logged actions and under random ones."""
    target, twist_BTA = future(scenes, starts, config.horizon)
    random_BTA = np.stack(
        [
            maneuvers.random_twist(
                scenes[start.scene_index], start.frame_index, config.horizon, seed=config.seed + index
            )
            for index, start in enumerate(starts)
        ]
    )
    clips = Clips(
        target=target,
        imagined=open_loop.imagine(scenes, starts, twist_BTA, label="under the logged actions"),
        randomly_driven=open_loop.imagine(scenes, starts, random_BTA, label="under random actions"),
        last=_last_frames(scenes, starts),
        groups=[start.scene_index for start in starts],
    )
    return clips, twist_BTA


def _last_frames(scenes: Sequence[HeldOutScene], starts: Sequence[Start]) -> Images:
    return np.stack([scenes[start.scene_index].frames(start.frame_index, 1)[0] for start in starts])


def _shown_worlds(open_loop: OpenLoop, clips: Clips) -> dict[str, Images]:
    """Return by suffix the worlds whose motion is read: imagined, and as floors true frames and tokenized ones."""
    flat = clips.target.reshape(-1, *clips.target.shape[2:])
    ceiling = tokenized(open_loop.model.tokenizer, flat).frames.reshape(clips.target.shape)
    worlds = {"": clips.imagined, "_true_frames": clips.target, "_tokenized_frames": ceiling}
    return {
        suffix: np.concatenate([clips.last[:, None], frames], axis=1) for suffix, frames in worlds.items()
    }


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
    last = _last_frames(scenes, starts)[:, None]
    worlds = [
        {name: np.concatenate([last, frames], axis=1) for name, frames in world.items()}
        for world in (imagined, true)
    ]
    return ManeuverFrames(**worlds[0]), ManeuverFrames(**worlds[1])


def sheet(measured: Measured, horizons: Sequence[int]) -> list[list[tuple[str, Images]]]:
    """Return labelled pictures, one row per start: recorded above imagined, then the four manoeuvres."""
    clips, driven = measured.clips, measured.maneuver_frames
    rows: list[list[tuple[str, Images]]] = []
    for index in np.linspace(0, len(clips.target) - 1, min(SHEET_ROWS, len(clips.target))).astype(int):
        recorded = [(f"recorded +{h}", clips.target[index, h - 1]) for h in horizons]
        imagined = [(f"imagined +{h}", clips.imagined[index, h - 1]) for h in horizons]
        rows += [[("start", clips.last[index]), *recorded], [("start", clips.last[index]), *imagined]]
    for index in np.linspace(0, len(driven.left) - 1, min(SHEET_ROWS, len(driven.left))).astype(int):
        named = {"left": driven.left, "right": driven.right, "slow": driven.slow, "fast": driven.fast}
        shown = [(f"{name} +{SHEET_STEP}", frames[index, SHEET_STEP]) for name, frames in named.items()]
        rows.append([("start", driven.left[index, 0]), *shown][: len(horizons) + 1])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, record, measure, print, write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    weights = {Extractor.LPIPS: options.lpips, Extractor.FID: options.fid, Extractor.FVD: options.fvd}
    config = FidelityConfig(
        horizon=options.horizon, num_starts=options.starts, batch_size=options.batch, learned=weights
    )
    model = load_world_model(options.weights)
    inverse_dynamics = None if options.idm == "none" else load_inverse_dynamics(options.idm)
    if options.scenes:
        scenes = embedded_scenes(options.scenes)
    else:
        scenes = record_held_out(
            first_seed=options.seed, num_scenes=options.num_scenes, num_frames=options.frames
        )
    measured = measure(model, scenes, config, inverse_dynamics=inverse_dynamics)
    source = ",".join(options.scenes) if options.scenes else f"seeds from {options.seed}"
    measured.report.facts = {
        "weights": options.weights,
        "scenes": f"{len(scenes)} ({source})",
        "starts": config.num_starts,
        "context_frames": model.num_context_frames,
        "decode_steps": model.config.sampler.num_decode_steps,
        **machine_facts(num_threads=options.threads),
    }
    measured.report.show()
    measured.report.write(options.out)
    write_sheet(options.out.with_suffix(".png"), sheet(measured, config.horizons))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--idm", default="inverse-dynamics", help="inverse dynamics weights, or none")
    parser.add_argument("--scenes", nargs="+", help="embedded scenes by name, or all, instead of new roads")
    parser.add_argument(
        "--seed",
        type=int,
        default=FIRST_HELD_OUT_SEED,
        help=f"first road seed, {FIRST_HELD_OUT_SEED} or above",
    )
    parser.add_argument("--num-scenes", type=int, default=64, help="roads to record")
    parser.add_argument("--frames", type=int, default=48, help="frames per road")
    parser.add_argument("--horizon", type=int, default=12, help="steps to imagine")
    parser.add_argument("--starts", type=int, default=64, help="instants at which the model takes over")
    parser.add_argument("--batch", type=int, default=8, help="starts imagined at once")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    for kind in Extractor:
        parser.add_argument(f"--{kind.value}", type=Path, help=f"TorchScript network for {kind.name}")
    parser.add_argument(
        "--out", type=Path, required=True, help="json file; a sheet of pictures lies beside it"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_command(main)
