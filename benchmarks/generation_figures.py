"""Does the video show what the text says? Figures from clips that are read by image analysis.

Beside every figure of the readers stand the same readings of true clips: as rendered (`ceiling`, what the readers are
worth), and after the tokenizer (`tokenizer`, the most that can be read in pictures drawn from tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.generation_cases import CameraCase, FlipCase, PromptCase
from benchmarks.generation_pipeline import GeneratedClip, GenerationPipeline, tracked
from benchmarks.pictures import finite_psnr
from benchmarks.readers import Reading, read_clip
from benchmarks.report import Curve, Report
from benchmarks.statistics import Estimate, bootstrap_mean, wilson_share
from drivesim.general_world.content import CameraMotion, Image, Motion, SceneSpec
from drivesim.general_world.sampling import Combination, Split

ATTRIBUTES = ("color", "shape", "direction")
SUFFIXES = {Split.SEEN: "seen", Split.HELD_OUT: "held_out"}
TRUE_CLIPS = {
    "ceiling": "true clips as rendered: the readers alone",
    "tokenizer": "true clips after the tokenizer",
}
"""Reference lines by their suffix."""
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


def generate_prompts(pipeline: GenerationPipeline, cases: Sequence[PromptCase]) -> list[GeneratedClip]:
    """Generate a clip per prompt."""
    return [pipeline.text_to_video(case.prompt, case.seed) for case in tracked("text to video", cases)]


def add_prompt_rows(report: Report, cases: Sequence[PromptCase], clips: Sequence[GeneratedClip]) -> None:
    """Add the accuracies of both splits, and how often a camera of which nothing was said stays still."""
    for split, suffix in SUFFIXES.items():
        chosen = [index for index, case in enumerate(cases) if case.split is split]
        hits = hits_of([clips[i].reading for i in chosen], [cases[i].combination for i in chosen])
        note = f"prompts of combinations that training has {'seen' if split is Split.SEEN else 'never seen'}"
        add_accuracies(report, suffix, hits, note=note)
    add_camera_still(report, "", [clip.reading for clip in clips])


def add_ceiling_rows(report: Report, pipeline: GenerationPipeline, cases: Sequence[PromptCase]) -> None:
    """Add the readers' accuracy on true clips of the same prompts, as rendered and after the tokenizer."""
    wanted = [case.combination for case in cases]
    for suffix, readings in read_true_clips(pipeline, [case.scene for case in cases]).items():
        add_accuracies(report, suffix, hits_of(readings, wanted), note=TRUE_CLIPS[suffix])
        add_camera_still(report, f"_{suffix}", readings)


def add_camera_still(report: Report, suffix: str, readings: Sequence[Reading]) -> None:
    """Add the share of clips whose camera is read as still."""
    is_still = [reading.camera is CameraMotion.STILL for reading in readings]
    note = "of the clips of prompts that say nothing of a camera"
    report.add_estimate(f"camera_still_share{suffix}", wilson_share(is_still), note=note)


def read_true_clips(pipeline: GenerationPipeline, scenes: Sequence[SceneSpec]) -> dict[str, list[Reading]]:
    """Return what is read in true clips, by the names of `TRUE_CLIPS`."""
    readings: dict[str, list[Reading]] = {suffix: [] for suffix in TRUE_CLIPS}
    for scene in tracked("reading true clips", scenes):
        frames = pipeline.true_clip(scene)
        readings["ceiling"].append(read_clip(frames))
        readings["tokenizer"].append(read_clip(pipeline.reconstruct(frames)))
    return readings


def add_camera_rows(report: Report, pipeline: GenerationPipeline, cases: Sequence[CameraCase]) -> None:
    """Add how often the camera does what the prompt says, for prompts in which it pans or zooms."""
    clips = [pipeline.text_to_video(case.prompt, case.seed) for case in tracked("camera prompts", cases)]
    note = "prompts of a still object before a camera that pans or zooms"
    rows = [("camera_accuracy", note, [clip.reading for clip in clips])]
    for suffix, readings in read_true_clips(pipeline, [case.scene for case in cases]).items():
        rows.append((f"camera_accuracy_{suffix}", TRUE_CLIPS[suffix], readings))
    for name, note, readings in rows:
        is_right = [one.camera is case.scene.camera for one, case in zip(readings, cases, strict=True)]
        report.add_estimate(name, wilson_share(is_right), note=note)


# ------------------------------------------------------------------------------------------ image to video


@dataclass(kw_only=True, slots=True)
class Flip:
    """One first image carried on under two opposite prompts."""

    case: FlipCase
    image: Image
    clips: dict[Motion, GeneratedClip]
    gap_db: list[float]  # PSNR of each clip's first frame minus that of the tokenizer's reconstruction
    true_directions: dict[str, list[Motion | None]]  # read in true clips of both ways, by reference line

    @property
    def follows(self) -> list[bool]:
        """Tell for each way whether the object goes where its prompt says."""
        return [clip.reading.direction is motion for motion, clip in self.clips.items()]


def generate_flips(pipeline: GenerationPipeline, cases: Sequence[FlipCase]) -> list[Flip]:
    """Carry every image on both ways, with the same seed."""
    return [_flip(pipeline, case) for case in tracked("image to video", cases)]


def _flip(pipeline: GenerationPipeline, case: FlipCase) -> Flip:
    true = {motion: pipeline.true_clip(case.scene_of(motion)) for motion in case.motions}
    image = true[case.motions[0]][0]
    reconstructed = {motion: pipeline.reconstruct(frames) for motion, frames in true.items()}
    clips = {
        motion: pipeline.image_to_video(image, case.prompt_of(motion), case.seed) for motion in case.motions
    }
    reconstruction_db = first_frame_psnr_db(reconstructed[case.motions[0]], image)
    return Flip(
        case=case,
        image=image,
        clips=clips,
        gap_db=[first_frame_psnr_db(clip.frames, image) - reconstruction_db for clip in clips.values()],
        true_directions={
            "ceiling": [read_clip(frames).direction for frames in true.values()],
            "tokenizer": [read_clip(frames).direction for frames in reconstructed.values()],
        },
    )


def first_frame_psnr_db(frames: Image, image: Image) -> float:
    """Return the PSNR of a clip's first frame against a picture, at most 100 dB."""
    return float(finite_psnr(frames[:1], image[None])[0])


def add_flip_rows(report: Report, flips: Sequence[Flip]) -> None:
    """Add how often the object follows the prompt, how often both ways, and what became of the first frame."""
    follows = [follows for flip in flips for follows in flip.follows]
    note = "same first image, opposite prompts; a model that ignores the text gets 50 % at most"
    report.add_estimate("image_prompt_flip_accuracy", wilson_share(follows), note=note)
    for suffix, note in TRUE_CLIPS.items():
        is_right = [
            read is motion
            for flip in flips
            for read, motion in zip(flip.true_directions[suffix], flip.case.motions, strict=True)
        ]
        report.add_estimate(f"image_prompt_flip_accuracy_{suffix}", wilson_share(is_right), note=note)
    both = [all(flip.follows) for flip in flips]
    note = "images that go both ways; a model that ignores the text gets 0 %"
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
    clips: dict[float, list[GeneratedClip]]  # by value of the setting, as many as cases


def sweep(
    name: str,
    cases: Sequence[PromptCase],
    pipelines: Mapping[float, GenerationPipeline],
    finished: Mapping[float, Sequence[GeneratedClip]],
) -> Sweep:
    """Generate every prompt under every value, prompt after prompt, so that a slow minute hits all alike.

    Args:
        name: of the setting.
        cases: the prompts.
        pipelines: by value of the setting.
        finished: clips that were generated before under some of the values.
    """
    missing = [value for value in pipelines if value not in finished]
    clips: dict[float, list[GeneratedClip]] = {value: list(finished.get(value, ())) for value in pipelines}
    for case, value in tracked(f"by {name}", list(product(cases, missing))):
        clips[value].append(pipelines[value].text_to_video(case.prompt, case.seed))
    return Sweep(name=name, cases=cases, clips=clips)


def add_sweep_rows(report: Report, result: Sweep) -> None:
    """Add accuracy and seconds per value, and the curve of the mean of the three readings."""
    wanted = [case.combination for case in result.cases]
    estimates: list[Estimate] = []
    for value, clips in result.clips.items():
        hits = hits_of([clip.reading for clip in clips], wanted)
        estimates.append(mean_accuracy(hits))
        key = f"{value:g}"
        note = "mean of colour, shape and direction, on a few prompts of both splits"
        report.add_estimate(f"accuracy_by_{result.name}", estimates[-1], key=key, note=note)
        for name, is_right in hits.items():
            report.add(f"{name}_accuracy_by_{result.name}", float(is_right.mean()), key=key)
        seconds = float(np.median([clip.seconds for clip in clips]))
        report.add(f"seconds_by_{result.name}", seconds, key=key, note="median")
    name = f"accuracy_by_{result.name}"
    report.curves[name] = Curve(steps=[int(value) for value in result.clips], estimates=estimates)


def mean_accuracy(hits: Hits) -> Estimate:
    """Return the share of right readings of all kinds, with an interval over prompts."""
    per_prompt = np.stack(list(hits.values())).mean(axis=0)
    return bootstrap_mean(per_prompt, list(range(len(per_prompt))))
