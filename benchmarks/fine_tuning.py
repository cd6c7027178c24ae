"""What does fine-tuning bring? `python -m benchmarks.fine_tuning --seed S --out DIR` on a world with other graphics.

Drives of the reference world are filmed in other graphics and by another camera (``drivesim/reference/restyle.py``),
as videos with a table each, and imported as any recording is. Shipped weights are fitted to three minutes of them. Then
the untouched and the fitted weights imagine the same held-out roads in the same graphics, under the recorded actions
and without a map, as imported data has none. A run that was killed goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.held_out import (
    HeldOutScene,
    Start,
    check_seeds,
    draw_starts,
    is_moving,
    last_frames,
    without_labels,
)
from benchmarks.open_loop import Images, OpenLoop, Twists, future
from benchmarks.pictures import FloatArray, finite_psnr, over_steps, tokenized
from benchmarks.report import Report, Sheet, Target, parsed, run_command, run_facts, write_sheet
from benchmarks.statistics import bootstrap_mean, bootstrap_steps
from drivesim import console
from drivesim.config import load_config, override, save_run_files
from drivesim.errors import InputError
from drivesim.files import remove_abandoned
from drivesim.imports.importing import import_recordings, write_import
from drivesim.imports.kinds import RecordingKind
from drivesim.imports.options import ImportConfig
from drivesim.reference.film import FilmConfig, film
from drivesim.reference.restyle import other_camera
from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.run_lock import locked
from drivesim.scene.nuscenes import open_dataset
from drivesim.training.fine_tuning import fine_tune, named_weights
from drivesim.world_model.pretrained import load_world_model

HORIZON = 12
NAMED_STEPS = (1, 6, 12)
HELD_OUT_DRIVE_S = 8.0
FIRST_SEED = 70_000
TARGETS = (Target(name="improvement_db", limit=1.5),)
SHEET_STEPS = (1, 3, 6, 12)
SHEET_STARTS = 4


@dataclass(kw_only=True, slots=True)
class Windows:
    """Held-out windows, the same for all weights."""

    scenes: list[HeldOutScene]
    starts: list[Start]
    target: Images  # (B, T, H, W, 3)
    twist: Twists  # (B, T, 2)
    repeat_db: FloatArray  # (B, T)

    @property
    def groups(self) -> list[int]:
        """Return the scene of each window."""
        return [start.scene_index for start in self.starts]


@dataclass(kw_only=True, slots=True)
class Imagined:
    """What some weights make of the windows."""

    frames: Images  # (B, T, H, W, 3)
    gain_db: FloatArray  # (B, T) over repeating the last frame
    ceiling_db: FloatArray  # (B,) mean PSNR of the recorded frames after the tokenizer


def main(arguments: Sequence[str] | None = None) -> None:
    """Film, import, fine-tune, measure, print, write."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    with locked(options.out, flag="--out"):
        train = _data_set(options.out / "train", options.seconds, 30.0, options.seed)
        held_out = _data_set(
            options.out / "held-out",
            options.drives * HELD_OUT_DRIVE_S,
            HELD_OUT_DRIVE_S,
            options.held_out_seed,
        )
        weights = _fine_tuned(options, train, options.out / "run")
        windows = open_windows(held_out, num_starts=options.starts)
        before = imagined(named_weights(options.init), windows, label="untouched weights")
        after = imagined(str(weights), windows, label="fine-tuned weights")
        report = report_of(windows, before, after)
        report.facts = _facts(options, windows)
        report.show()
        report.write(options.out / "fine_tuning.json")
        write_sheet(options.out / "fine_tuning.png", sheet(windows, before, after))


def _data_set(folder: Path, total_s: float, drive_s: float, seed: int) -> Path:
    """Return a data set of filmed and imported drives, made now or before."""
    films, data = folder / "films", folder / "data"
    for path in (films, data):
        remove_abandoned(path)
    config = FilmConfig(total_s=total_s, drive_s=min(drive_s, total_s), first_seed=seed)
    if not films.is_dir():
        with console.progress_bar(f"filming drives ({folder.name})", round(total_s)) as bar:
            film(config, films, on_progress=bar.update)
    if not data.is_dir():
        imported = import_recordings(RecordingKind("csv"), films, import_config())
        write_import(imported, data)
        console.say(f"{len(imported.scenes)} scenes in {data}")
    return data


def import_config() -> ImportConfig:
    """Return what is known of the camera that films."""
    camera = other_camera()
    return ImportConfig(
        field_of_view_rad=2 * math.atan(camera.width_px / 2 / camera.fx_px),
        camera_height_m=float(camera.ego_from_cam[2, 3]),
        camera_forward_m=float(camera.ego_from_cam[0, 3]),
    )


def _fine_tuned(options: argparse.Namespace, data: Path, out: Path) -> Path:
    """Return the fitted weights, as `drivesim train world-model data=... init=...` leaves them."""
    config = load_config(
        "train",
        [
            override("data", str(data)),
            override("init", options.init),
            f"training.max_minutes={options.minutes}",
            f"training.num_threads={options.threads}",
            f"training.seed={options.seed}",
            *options.overrides,
        ],
    )
    is_begun = out.is_dir()
    return fine_tune(config, out, resume=is_begun, on_start=lambda: save_run_files(config, out)).weights


def open_windows(data: Path, *, num_starts: int) -> Windows:
    """Return windows in which the car moves, spread evenly over the scenes of a data set.

    Raises:
        InputError: there are none.
    """
    dataset = open_dataset(data)
    scenes = [without_labels(dataset.load(name)) for name in dataset.scene_names()]
    starts = draw_starts(
        scenes,
        num_starts,
        num_context_frames=4,
        horizon=HORIZON,
        is_eligible=is_moving,
        may_be_fewer=True,
    )
    if not starts:
        raise InputError(
            f"in none of {len(scenes)} held-out drives does the car move long enough; film others"
        )
    starts = sorted(starts, key=lambda start: (start.scene_index, start.frame_index))
    target, twist = future(scenes, starts, HORIZON)
    repeated = np.broadcast_to(last_frames(scenes, starts)[:, None], target.shape)
    repeat_db = over_steps(finite_psnr, repeated, target)
    return Windows(scenes=scenes, starts=starts, target=target, twist=twist, repeat_db=repeat_db)


def imagined(weights: str, windows: Windows, *, label: str) -> Imagined:
    """Let weights imagine all windows under the recorded actions."""
    model = load_world_model(weights)
    camera = windows.scenes[0].scene.camera
    open_loop = OpenLoop(model=model, camera=camera, has_map=False)
    frames = open_loop.imagine(windows.scenes, windows.starts, windows.twist, label=label)
    seen = tokenized(model.tokenizer, windows.target).frames
    return Imagined(
        frames=frames,
        gain_db=over_steps(finite_psnr, frames, windows.target) - windows.repeat_db,
        ceiling_db=over_steps(finite_psnr, seen, windows.target).mean(axis=1),
    )


def report_of(windows: Windows, before: Imagined, after: Imagined) -> Report:
    """Return the figures, with intervals from resampling drives."""
    report, groups = Report(title="fine-tuning", targets=TARGETS), windows.groups
    for step in NAMED_STEPS:
        for when, world in {"before": before, "after": after}.items():
            estimate = bootstrap_mean(world.gain_db[:, step - 1], groups)
            report.add_estimate(
                f"psnr_gain_at_{step}_{when}", estimate, note="dB over repeating the last frame"
            )
    difference_BT = after.gain_db - before.gain_db
    six = bootstrap_mean(difference_BT[:, 5], groups)
    report.add_estimate("improvement_db", six, note="of the gain at 6 steps, window by window")
    report.add_series("improvement_over_steps_db", bootstrap_steps(difference_BT, groups))
    for when, world in {"before": before, "after": after}.items():
        report.add_estimate(f"tokenizer_psnr_db_{when}", bootstrap_mean(world.ceiling_db, groups))
    return report


def sheet(windows: Windows, before: Imagined, after: Imagined) -> Sheet:
    """Return labelled pictures, three rows per start: recorded, imagined before, imagined after."""
    chosen = np.linspace(0, len(windows.starts) - 1, min(SHEET_STARTS, len(windows.starts))).astype(int)
    last = last_frames(windows.scenes, windows.starts)
    worlds = {"recorded": windows.target, "before": before.frames, "after": after.frames}
    return [
        [("start", last[index]), *((f"{name} +{step}", frames[index, step - 1]) for step in SHEET_STEPS)]
        for index in chosen
        for name, frames in worlds.items()
    ]


def _facts(options: argparse.Namespace, windows: Windows) -> dict[str, object]:
    return {
        "init": options.init,
        "training": f"{options.seconds:g} s of drives from road seed {options.seed}, {options.minutes:g} minutes",
        "roads": check_seeds(options.held_out_seed, 1),
        "held_out": f"{len(windows.starts)} windows of {len(windows.scenes)} drives from seed {options.held_out_seed}",
        "overrides": " ".join(options.overrides) or "none",
        "map": "none",
        **run_facts(options, num_threads=options.threads),
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    number = partial(parser.add_argument, type=int)
    number(
        "--seed", default=FIRST_SEED, help=f"first road of the training drives, and of chance ({FIRST_SEED})"
    )
    number(
        "--held-out-seed", default=FIRST_HELD_OUT_SEED, help=f"first held-out road ({FIRST_HELD_OUT_SEED})"
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="of training drives (180)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of fine-tuning (10)")
    number("--drives", default=32, help="held-out drives (32)")
    number("--starts", default=128, help="windows measured in them (128)")
    number("--threads", default=2, help="processor threads (2)")
    parser.add_argument("--init", default="drive_tiny", help="weights to begin with")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the training run")
    options = parsed(parser, arguments)
    if not 0 <= options.seed < FIRST_VALIDATION_SEED:
        raise InputError(
            f"--seed {options.seed} is no training road; choose one below {FIRST_VALIDATION_SEED}"
        )
    check_seeds(options.held_out_seed, 1)
    for name in ("drives", "starts", "threads", "seconds", "minutes"):
        if not getattr(options, name) > 0:
            raise InputError(f"--{name} must be positive, got {getattr(options, name)}")
    return options


if __name__ == "__main__":
    run_command(main)
