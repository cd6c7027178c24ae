"""Does the video show what the text says? Figures from clips that are read by image analysis.

Every figure that a reader makes stands beside the same reading of true clips, and of true clips after the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.generation_cases import CameraCase, FlipCase, PromptCase
from benchmarks.generation_studio import Made, Studio, tracked
from benchmarks.pictures import finite_psnr
from benchmarks.readers import Reading, read_clip
from benchmarks.report import Curve, Report
from benchmarks.statistics import Estimate, bootstrap_mean, wilson_share
from drivesim.general_world.content import CameraMotion, Image, Motion, SceneSpec
from drivesim.general_world.sampling import Combination, Split

ATTRIBUTES = ("color", "shape", "direction")
SUFFIXES = {Split.SEEN: "seen", Split.HELD_OUT: "held_out"}
BoolArray = NDArray[np.bool_]
Hits = dict[str, BoolArray]
"""For each attribute whether each clip shows the right one, (N,)."""


def hits_of(readings: Sequence[Reading], wanted: Sequence[Combination]) -> Hits:
    """Compare what was read with what was asked for; what cannot be read is wrong."""
    pairs = list(zip(readings, wanted, strict=True))
    return {
        "color": np.array([reading.color is want.color for reading, want in pairs], dtype=bool),
        "shape": np.array([reading.shape is want.shape for reading, want in pairs], dtype=bool),
        "direction": np.array([reading.direction is want.motion for reading, want in pairs], dtype=bool),
    }


def add_accuracies(report: Report, suffix: str, hits: Hits, *, note: str) -> None:
    """Add the share of right readings per attribute, and of clips in which all three are right."""
    for name, is_right in hits.items():
        report.add_estimate(f"{name}_accuracy_{suffix}", wilson_share(is_right))
    is_all_right = np.logical_and.reduce(list(hits.values()))
    report.add_estimate(
        f"all_three_accuracy_{suffix}", wilson_share(is_all_right), note=f"this and the three above: {note}"
    )


# ------------------------------------------------------------------------------------------- text to video


def make_prompts(studio: Studio, cases: Sequence[PromptCase]) -> list[Made]:
    """Make a clip per prompt."""
    return [studio.from_text(case.prompt, case.seed) for case in tracked("text to video", cases)]


def add_prompt_rows(report: Report, cases: Sequence[PromptCase], made: Sequence[Made]) -> None:
    """Add the accuracies of both splits, and how often a camera of which nothing was said stays still."""
    for split, suffix in SUFFIXES.items():
        chosen = [index for index, case in enumerate(cases) if case.split is split]
        hits = hits_of([made[i].reading for i in chosen], [cases[i].combination for i in chosen])
        note = f"prompts of combinations that training has {'seen' if split is Split.SEEN else 'never seen'}"
        add_accuracies(report, suffix, hits, note=note)
    add_camera_still(report, "", [one.reading for one in made])


def add_ceiling_rows(report: Report, studio: Studio, cases: Sequence[PromptCase]) -> None:
    """Add the readers' accuracy on true clips of the same prompts, and on those after the tokenizer."""
    true, tokenized = read_truth(studio, [case.scene for case in cases])
    wanted = [case.combination for case in cases]
    add_accuracies(report, "ceiling", hits_of(tokenized, wanted), note="true clips after the tokenizer")
    add_camera_still(report, "_ceiling", tokenized)
    add_accuracies(report, "true_clips", hits_of(true, wanted), note="true clips: the readers alone")
    add_camera_still(report, "_true_clips", true)


def add_camera_still(report: Report, suffix: str, readings: Sequence[Reading]) -> None:
    """Add the share of clips whose camera is read as still."""
    is_still = [reading.camera is CameraMotion.STILL for reading in readings]
    note = "of the clips of prompts that say nothing of a camera"
    report.add_estimate(f"camera_still_share{suffix}", wilson_share(is_still), note=note)


def read_truth(studio: Studio, scenes: Sequence[SceneSpec]) -> tuple[list[Reading], list[Reading]]:
    """Return what is read in true clips, and in those after the tokenizer."""
    true, tokenized = [], []
    for scene in tracked("reading true clips", scenes):
        frames = studio.true_clip(scene)
        true.append(read_clip(frames))
        tokenized.append(read_clip(studio.maker.tokenized(frames)))
    return true, tokenized


def add_camera_rows(report: Report, studio: Studio, cases: Sequence[CameraCase]) -> None:
    """Add how often the camera does what the prompt says, for prompts in which it pans or zooms."""
    made = [studio.from_text(case.prompt, case.seed) for case in tracked("camera prompts", cases)]
    true, tokenized = read_truth(studio, [case.scene for case in cases])
    readings = {"": [one.reading for one in made], "_ceiling": tokenized, "_true_clips": true}
    for suffix, read in readings.items():
        is_right = [one.camera is case.scene.camera for one, case in zip(read, cases, strict=True)]
        report.add_estimate(f"camera_accuracy{suffix}", wilson_share(is_right), note=_CAMERA_NOTE)


_CAMERA_NOTE = "prompts of a still object before a camera that pans or zooms"


# ------------------------------------------------------------------------------------------ image to video


@dataclass(kw_only=True, slots=True)
class Flip:
    """One first image carried on under two opposite prompts."""

    case: FlipCase
    image: Image
    made: dict[Motion, Made]
    gap_db: list[float]  # PSNR of each clip's first frame minus that of the tokenizer's reconstruction
    read_ceiling: list[Motion | None]  # in true clips of both ways after the tokenizer

    @property
    def follows(self) -> list[bool]:
        """Tell for each way whether the object goes where its prompt says."""
        return [made.reading.direction is motion for motion, made in self.made.items()]


def make_flips(studio: Studio, cases: Sequence[FlipCase]) -> list[Flip]:
    """Carry every image on both ways, with the same seed."""
    return [_flip(studio, case) for case in tracked("image to video", cases)]


def _flip(studio: Studio, case: FlipCase) -> Flip:
    true = {motion: studio.true_clip(case.scene_of(motion)) for motion in case.motions}
    image = true[case.motions[0]][0]
    tokenized = {motion: studio.maker.tokenized(frames) for motion, frames in true.items()}
    made = {motion: studio.from_image(image, case.prompt_of(motion), case.seed) for motion in case.motions}
    reconstruction_db = first_frame_psnr_db(tokenized[case.motions[0]], image)
    return Flip(
        case=case,
        image=image,
        made=made,
        gap_db=[first_frame_psnr_db(one.frames, image) - reconstruction_db for one in made.values()],
        read_ceiling=[read_clip(tokenized[motion]).direction for motion in case.motions],
    )


def first_frame_psnr_db(frames: Image, image: Image) -> float:
    """Return the PSNR of a clip's first frame against a picture, at most 100 dB."""
    return float(finite_psnr(frames[:1], image[None])[0])


def add_flip_rows(report: Report, flips: Sequence[Flip]) -> None:
    """Add how often the object follows the prompt, how often both ways, and what became of the first frame."""
    follows = [follows for flip in flips for follows in flip.follows]
    ceiling = [
        read is motion
        for flip in flips
        for read, motion in zip(flip.read_ceiling, flip.case.motions, strict=True)
    ]
    note = "same first image, opposite prompts; a model deaf to the text gets 50 % at most"
    report.add_estimate("image_prompt_flip_accuracy", wilson_share(follows), note=note)
    note = "true clips from the same images, after the tokenizer"
    report.add_estimate("image_prompt_flip_accuracy_ceiling", wilson_share(ceiling), note=note)
    both = [all(flip.follows) for flip in flips]
    note = "images that go both ways; a model deaf to the text gets 0 %"
    report.add_estimate("image_prompt_both_ways_accuracy", wilson_share(both), note=note)
    gap_db = [gap_db for flip in flips for gap_db in flip.gap_db]
    groups = np.repeat(np.arange(len(flips)), 2).tolist()
    note = "first frame of the result minus the tokenizer's reconstruction, both against the given image"
    report.add_estimate("first_frame_psnr_gap_db", bootstrap_mean(gap_db, groups), note=note)


# -------------------------------------------------------------------------------------- ways of decoding


@dataclass(kw_only=True, slots=True)
class Sweep:
    """The same prompts under several values of one setting."""

    name: str  # "rounds" or "guidance"
    cases: Sequence[PromptCase]
    made: dict[float, list[Made]]  # by value of the setting, as many as cases


def sweep(
    name: str,
    cases: Sequence[PromptCase],
    studios: Mapping[float, Studio],
    finished: Mapping[float, Sequence[Made]],
) -> Sweep:
    """Make every prompt under every value, value after value, so that a slow minute hits all alike.

    Args:
        name: of the setting.
        cases: the prompts.
        studios: by value of the setting.
        finished: clips that were made before under some of the values.
    """
    missing = [value for value in studios if value not in finished]
    made: dict[float, list[Made]] = {value: list(finished.get(value, ())) for value in studios}
    for case, value in tracked(f"by {name}", list(product(cases, missing))):
        made[value].append(studios[value].from_text(case.prompt, case.seed))
    return Sweep(name=name, cases=cases, made=made)


def add_sweep_rows(report: Report, result: Sweep) -> None:
    """Add accuracy and seconds per value, and the curve of the mean of the three readings."""
    wanted = [case.combination for case in result.cases]
    estimates: list[Estimate] = []
    for value, made in result.made.items():
        hits = hits_of([one.reading for one in made], wanted)
        estimates.append(mean_accuracy(hits))
        key = f"{value:g}"
        note = "mean of colour, shape and direction, on a few prompts of both splits"
        report.add_estimate(f"accuracy_by_{result.name}", estimates[-1], key=key, note=note)
        for name, is_right in hits.items():
            report.add(f"{name}_accuracy_by_{result.name}", float(is_right.mean()), key=key)
        seconds = float(np.median([one.seconds for one in made]))
        report.add(f"seconds_by_{result.name}", seconds, key=key, note="median")
    name = f"accuracy_by_{result.name}"
    report.curves[name] = Curve(steps=[int(value) for value in result.made], estimates=estimates)


def mean_accuracy(hits: Hits) -> Estimate:
    """Return the share of right readings of all kinds, with an interval over prompts."""
    per_prompt = np.stack(list(hits.values())).mean(axis=0)
    return bootstrap_mean(per_prompt, list(range(len(per_prompt))))
