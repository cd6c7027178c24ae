"""All of the generation benchmark but its command line: how much is measured, on which cases, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from benchmarks.clip_speed import ClipSpeedConfig
from benchmarks.generation_cases import (
    CameraCase,
    FlipCase,
    InpaintingCase,
    PromptCase,
    camera_cases,
    flip_cases,
    inpainting_cases,
    prompt_cases,
)
from benchmarks.generation_figures import (
    Flip,
    Sweep,
    add_camera_rows,
    add_ceiling_rows,
    add_flip_rows,
    add_prompt_rows,
    add_sweep_rows,
    generate_flips,
    generate_prompts,
    sweep,
)
from benchmarks.generation_inpainting import Inpainting, add_inpainting_rows, generate_inpaintings
from benchmarks.generation_pipeline import GeneratedClip, GenerationPipeline
from benchmarks.report import Report
from drivesim.errors import InputError
from drivesim.general_world.sampling import Split

NUM_PROMPTS = 200
ROUNDS = (1, 2, 4, 6, 10, 16, 30)
GUIDANCE = (0.0, 1.0, 2.0, 4.0, 8.0)


@dataclass(kw_only=True, slots=True)
class Extent:
    """How much is measured; 0 leaves a part out."""

    num_prompts: int = NUM_PROMPTS  # half of them of held-out combinations
    num_flips: int = 100  # clips from images: half as many images, each both ways
    num_inpaintings: int = 24
    num_camera_prompts: int = 16
    num_rounds_prompts: int = 24  # of the table of rounds: the first of the prompts
    num_guidance_prompts: int = 4  # of the table of guidance, likewise
    speed: ClipSpeedConfig | None = field(default_factory=ClipSpeedConfig)  # None times nothing

    def __post_init__(self) -> None:
        """Refuse what is no number of clips."""
        if self.num_prompts < 2 or self.num_prompts % 2:
            raise InputError(
                f"--num-prompts must be an even number from 2 on, half seen and half held out, got {self.num_prompts}"
            )
        if self.num_flips < 0 or self.num_flips % 2:
            raise InputError(
                f"--num-flips must be 0 or an even number, two clips per image, got {self.num_flips}"
            )
        counts = (
            self.num_inpaintings,
            self.num_camera_prompts,
            self.num_rounds_prompts,
            self.num_guidance_prompts,
        )
        if min(counts) < 0:
            raise InputError(
                "--num-inpaintings, --num-camera-prompts, --num-rounds-prompts and --num-guidance-prompts must not be "
                f"negative, got {counts}"
            )

    @property
    def num_seeds(self) -> int:
        """Return how many seeds the cases take."""
        return self.num_prompts + self.num_flips // 2 + self.num_inpaintings + self.num_camera_prompts


FULL = Extent()
QUICK = Extent(
    num_prompts=12,
    num_flips=6,
    num_inpaintings=2,
    num_camera_prompts=0,
    num_rounds_prompts=1,
    num_guidance_prompts=0,
    speed=ClipSpeedConfig(diffusion_steps=6, num_places=3),
)


def only_prompts(extent: Extent) -> Extent:
    """Return an extent with nothing but text to video."""
    return replace(
        extent,
        num_flips=0,
        num_inpaintings=0,
        num_camera_prompts=0,
        num_rounds_prompts=0,
        num_guidance_prompts=0,
        speed=None,
    )


@dataclass(kw_only=True, slots=True)
class GenerationResults:
    """Figures, and the clips that they were read from."""

    report: Report
    cases: list[PromptCase]
    clips: list[GeneratedClip]
    flips: list[Flip]
    inpaintings: list[Inpainting]
    sweeps: list[Sweep]


@dataclass(kw_only=True, slots=True)
class Cases:
    """What is asked for, each with a seed of its own."""

    prompts: list[PromptCase]  # seen combinations, then as many held-out ones
    flips: list[FlipCase]
    inpaintings: list[InpaintingCase]
    cameras: list[CameraCase]


def draw_cases(extent: Extent, *, first_seed: int, height_px: int, width_px: int) -> Cases:
    """Draw all cases for clips of one size."""
    half, num_images = extent.num_prompts // 2, extent.num_flips // 2
    counts = (half, half, num_images, extent.num_inpaintings)
    seen, held_out, flips, inpaintings, cameras = accumulate(counts, initial=first_seed)
    return Cases(
        prompts=[
            *prompt_cases(Split.SEEN, half, first_seed=seen),
            *prompt_cases(Split.HELD_OUT, half, first_seed=held_out),
        ],
        flips=flip_cases(num_images, first_seed=flips),
        inpaintings=inpainting_cases(
            extent.num_inpaintings, first_seed=inpaintings, height_px=height_px, width_px=width_px
        ),
        cameras=camera_cases(extent.num_camera_prompts, first_seed=cameras),
    )


def measure(pipeline: GenerationPipeline, extent: Extent, *, first_seed: int) -> GenerationResults:
    """Generate and read everything but the times of other decoders."""
    report = Report(title="generation")
    cases = draw_cases(
        extent, first_seed=first_seed, height_px=pipeline.height_px, width_px=pipeline.width_px
    )
    clips = generate_prompts(pipeline, cases.prompts)
    add_prompt_rows(report, cases.prompts, clips)
    add_ceiling_rows(report, pipeline, cases.prompts)
    flips = generate_flips(pipeline, cases.flips)
    if flips:
        add_flip_rows(report, flips)
    inpaintings = generate_inpaintings(pipeline, cases.inpaintings)
    if inpaintings:
        add_inpainting_rows(report, inpaintings)
    if cases.cameras:
        add_camera_rows(report, pipeline, cases.cameras)
    sweeps = measure_sweeps(pipeline, extent, cases.prompts, clips)
    for result in sweeps:
        add_sweep_rows(report, result)
    return GenerationResults(
        report=report, cases=cases.prompts, clips=clips, flips=flips, inpaintings=inpaintings, sweeps=sweeps
    )


def measure_sweeps(
    pipeline: GenerationPipeline, extent: Extent, cases: Sequence[PromptCase], clips: Sequence[GeneratedClip]
) -> list[Sweep]:
    """Generate a few prompts of both splits in other rounds, without revisions, and with other guidance.

    Where a value comes to the settings of the finished clips these are taken, and their seconds.
    """
    ways = [
        ("rounds", extent.num_rounds_prompts, {float(n): pipeline.with_rounds(n) for n in ROUNDS}),
        ("guidance", extent.num_guidance_prompts, {x: pipeline.with_guidance(x) for x in GUIDANCE}),
    ]
    sweeps = []
    for name, count, pipelines in ways:
        chosen = chosen_prompts(count, len(cases))
        if chosen:
            finished = {
                value: [clips[i] for i in chosen]
                for value, other in pipelines.items()
                if other.config == pipeline.config
            }
            sweeps.append(sweep(name, [cases[i] for i in chosen], pipelines, finished))
    return sweeps


def chosen_prompts(count: int, num_prompts: int) -> list[int]:
    """Return the places of the first ``count`` prompts, half of either half of all of them."""
    count, half = min(count, num_prompts), num_prompts // 2
    return [*range((count + 1) // 2), *range(half, half + count // 2)]
