"""What the generation page shows: prompts, images carried on both ways, filled rectangles, rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.generation_cases import PromptCase
from benchmarks.generation_figures import ATTRIBUTES, Flip, Sweep, hits_of
from benchmarks.generation_inpainting import Inpainting
from benchmarks.generation_pipeline import GeneratedClip
from benchmarks.page import Plot
from benchmarks.report import Sheet
from drivesim.general_world.content import Image
from drivesim.general_world.sampling import Split
from drivesim.video import contact_sheet, with_label

MAX_ROWS = 8
SHOWN_FRAMES = 4
MARK_PX = 4  # height of the bar under a reading
RIGHT_RGB, WRONG_RGB = (40, 160, 80), (200, 50, 40)
MOVING_COLUMNS = 4
PLOTS = (
    Plot(
        title="Decoding rounds without revisions: right readings",
        unit="share",
        lines={"mean of colour, shape, direction": "accuracy_by_rounds"},
        x_label="rounds",
    ),
    Plot(
        title="Guidance: right readings",
        unit="share",
        lines={"mean of colour, shape, direction": "accuracy_by_guidance"},
        x_label="scale",
    ),
)

Cell = tuple[str, Image]


def prompt_sheet(cases: Sequence[PromptCase], clips: Sequence[GeneratedClip], split: Split) -> Sheet:
    """Return the first prompts of a split, four frames each; the last three carry what was read."""
    pairs = [(case, one) for case, one in zip(cases, clips, strict=True) if case.split is split]
    return [_prompt_row(case, one) for case, one in pairs[:MAX_ROWS]]


def _prompt_row(case: PromptCase, clip: GeneratedClip) -> list[Cell]:
    first, *others = _spread(clip.frames)
    hits = hits_of([clip.reading], [case.combination])
    cells: list[Cell] = [(case.prompt, first)]
    for name, frame in zip(ATTRIBUTES, others, strict=True):
        cells.append(marked(name, getattr(clip.reading, name), frame, is_right=bool(hits[name][0])))
    return cells


def flip_sheet(flips: Sequence[Flip]) -> Sheet:
    """Return first images, and what became of each under both prompts."""
    rows = []
    for flip in flips[:MAX_ROWS]:
        cells: list[Cell] = [("given", flip.image)]
        for motion, clip in flip.clips.items():
            *between, last = _spread(clip.frames)[1:]
            cells += [(motion.value, frame) for frame in between]
            read = clip.reading.direction
            cells.append(marked("reads", read, last, is_right=read is motion))
        rows.append(cells)
    return rows


def inpainting_sheet(inpaintings: Sequence[Inpainting]) -> Sheet:
    """Return two frames per clip: the true one, what was given, what was generated."""
    rows = []
    for one in inpaintings[:MAX_ROWS]:
        cells: list[Cell] = []
        for index in (len(one.true) // 4, 3 * len(one.true) // 4):
            cells += [
                (one.case.prompt, one.true[index]),
                ("given", one.given[index]),
                (f"generated: {one.psnr_db['model']:.1f} dB", one.result[index]),
            ]
        rows.append(cells)
    return rows


def sweep_sheet(result: Sweep) -> Sheet:
    """Return the middle and the last frame of the first prompts, a column per value of the setting, lowest first."""
    rows: list[list[Cell]] = []
    for index, case in enumerate(result.cases[: MAX_ROWS // 2]):
        for at in (0.5, 1.0):
            cells: list[Cell] = []
            for column, (value, clips) in enumerate(result.clips.items()):
                frame = clips[index].frames[round(at * (len(clips[index].frames) - 1))]
                is_title = column == 0 and at < 1
                cells.append((case.prompt if is_title else f"{result.name} {value:g}", frame))
            rows.append(cells)
    return rows


def moving_pictures(cases: Sequence[PromptCase], clips: Sequence[GeneratedClip]) -> Iterator[Image]:
    """Yield the frames of a video: prompts of both splits side by side, each under its sentence."""
    chosen = [
        index
        for split in Split
        for index in [i for i, case in enumerate(cases) if case.split is split][:MOVING_COLUMNS]
    ]
    columns = min(MOVING_COLUMNS, len(chosen))
    for t in range(len(clips[0].frames)):
        yield contact_sheet([with_label(clips[i].frames[t], cases[i].prompt) for i in chosen], columns)


def marked(name: str, read: object, frame: Image, *, is_right: bool) -> Cell:
    """Return a frame with what was read as its label and a green or red bar below."""
    shown = frame.copy()
    shown[-MARK_PX:] = RIGHT_RGB if is_right else WRONG_RGB
    value = getattr(read, "value", "nothing")
    return f"{name} {value}: {'right' if is_right else 'wrong'}", shown


def _spread(frames: Image) -> list[Image]:
    """Return frames from the first to the last."""
    return [frames[index] for index in np.linspace(0, len(frames) - 1, SHOWN_FRAMES).round().astype(int)]
