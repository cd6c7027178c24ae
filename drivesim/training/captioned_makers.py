"""What captioned sets are made of: the general world, the reference world's drives, and captioned files of one's own.

Seeds as for roads: training stays below 890000, sets to validate on begin there, published figures use 900000 and up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from drivesim.reference.seeds import FIRST_HELD_OUT_SEED, FIRST_VALIDATION_SEED
from drivesim.scene.types import front_camera
from drivesim.training.captioned_set import CaptionedItem, CaptionedSet, write_set
from drivesim.training.worker_pool import worked

WORLD_VERSION = 3  # raised when the same seeds give other clips or captions
NUM_WORDINGS = 4  # captions drawn per item
CLIPS_PER_DRIVE = 2


@dataclass(kw_only=True, slots=True)
class GeneralDataConfig:
    """Captioned clips and images, of the project's own worlds or of files; made once and kept."""

    path: str = "out/data/general"
    num_clips: int = 8000  # of the general world
    num_images: int = 16000  # of the general world
    num_drives: int = 300  # of the reference world, two clips each
    num_validation_clips: int = 64
    num_validation_images: int = 128
    frames_per_clip: int = 16
    height_px: int = 128
    width_px: int = 224
    first_seed: int = 0
    num_workers: int = 2

    def __post_init__(self) -> None:
        """Refuse empty sets and seeds that are kept for validation and benchmarks."""
        counts = (self.num_clips, self.num_images, self.num_validation_clips, self.num_validation_images)
        if min(*counts, self.num_workers, self.frames_per_clip - 1) < 1 or self.num_drives < 0:
            raise ValueError(
                "general needs clips, images, validation clips and images, num_workers >= 1, num_drives >= 0 and "
                f"frames_per_clip >= 2, got {asdict(self)}"
            )
        last = self.first_seed + max(self.num_clips + self.num_images, self.num_drives)
        most = FIRST_HELD_OUT_SEED - FIRST_VALIDATION_SEED
        if self.num_validation_clips + self.num_validation_images > most:
            raise ValueError(
                f"general.num_validation_clips and num_validation_images must be {most} at most together, got "
                f"{self.num_validation_clips} and {self.num_validation_images}"
            )
        if self.first_seed < 0 or last > FIRST_VALIDATION_SEED:
            raise ValueError(
                f"general.first_seed and the clips and images after it must stay in 0..{FIRST_VALIDATION_SEED}, "
                f"got {self.first_seed}..{last}"
            )


def open_or_make(
    config: GeneralDataConfig, *, on_progress: Callable[[int], None] | None = None
) -> tuple[CaptionedSet, CaptionedSet]:
    """Return (training set, validation set), making what is not there yet.

    Raises:
        InputError: the folder holds a set of something else, or a worker process died.
    """
    train = _facts(config.num_clips, config.num_images, config.num_drives, config.first_seed, config)
    validation = _facts(
        config.num_validation_clips, config.num_validation_images, 0, FIRST_VALIDATION_SEED, config
    )
    first = _set_of(Path(config.path) / "train", train, config.num_workers, on_progress)
    return first, _set_of(Path(config.path) / "validation", validation, config.num_workers, on_progress)


def _facts(
    clips: int, images: int, drives: int, first_seed: int, config: GeneralDataConfig
) -> dict[str, int]:
    return {
        "num_clips": clips,
        "num_images": images,
        "num_drives": drives,
        "first_seed": first_seed,
        "frames_per_clip": config.frames_per_clip,
        "height_px": config.height_px,
        "width_px": config.width_px,
        "world": WORLD_VERSION,
    }


def _set_of(
    path: Path, facts: dict[str, int], num_workers: int, on_progress: Callable[[int], None] | None
) -> CaptionedSet:
    if path.exists():
        return CaptionedSet.open(path, made_of=facts)
    frames, first = facts["frames_per_clip"], facts["first_seed"]
    size = (facts["height_px"], facts["width_px"])
    drives = [partial(_drive, first + i, frames, size) for i in range(facts["num_drives"])]
    scenes = [partial(_scene, first + i, frames, size) for i in range(facts["num_clips"])]
    images = [partial(_scene, first + facts["num_clips"] + i, 1, size) for i in range(facts["num_images"])]
    made = worked(
        _call,
        [*drives, *scenes, *images],
        num_workers=num_workers,
        doing="rendering",
        setting="general.num_workers",
        jobs_per_call=8,
    )
    return write_set(
        path,
        chain.from_iterable(made),
        num_clips=facts["num_clips"] + CLIPS_PER_DRIVE * facts["num_drives"],
        num_images=facts["num_images"],
        clip_shape=(frames, *size),
        facts=facts,
        on_progress=on_progress,
    )


Maker = partial[list[CaptionedItem]]


def _call(maker: Maker) -> list[CaptionedItem]:
    return maker()


def _scene(seed: int, num_frames: int, size: tuple[int, int]) -> list[CaptionedItem]:
    """Render a scene of the general world, of the combinations that training may see."""
    from drivesim.general_world.captions import caption_of, frame_caption_of
    from drivesim.general_world.renderer import render
    from drivesim.general_world.sampling import Split, draw_scene
    from drivesim.general_world.trajectory import object_boxes
    from drivesim.reference.camera import draw_in_one_thread

    draw_in_one_thread()
    rng = np.random.default_rng([seed, num_frames])
    scene = draw_scene(rng, Split.SEEN)
    height_px, width_px = size
    # An image is the first frame of a clip: half of its captions say how that goes on, as prompts for clips do.
    is_still = [num_frames == 1 and index % 2 == 0 for index in range(NUM_WORDINGS)]
    captions = [caption_of(scene, rng, is_image=tells_no_motion) for tells_no_motion in is_still]
    return [
        CaptionedItem(
            frames=render(scene, num_frames=num_frames, height_px=height_px, width_px=width_px),
            captions=captions,
            frame_captions=[frame_caption_of(scene, rng) for _ in range(NUM_WORDINGS)],
            boxes=object_boxes(scene, num_frames),
        )
    ]


def _drive(seed: int, num_frames: int, size: tuple[int, int]) -> list[CaptionedItem]:
    """Record a drive through the reference world, at the general world's frames per second."""
    from drivesim.general_world.content import RATE_HZ
    from drivesim.reference.behavior import record
    from drivesim.reference.camera import draw_in_one_thread
    from drivesim.reference.simulator import draw_spec

    draw_in_one_thread()
    recording = record(
        draw_spec(seed),
        driver=None,
        num_frames=CLIPS_PER_DRIVE * num_frames,
        driver_seed=seed,
        rate_hz=RATE_HZ,
        camera=front_camera().resized(width_px=size[1], height_px=size[0]),
    )
    scene = recording.scene
    twist = np.stack([scene.speed_mps, scene.yaw_rate_radps], axis=-1).astype(np.float32)
    items = []
    for start in range(0, CLIPS_PER_DRIVE * num_frames, num_frames):
        window = range(start, start + num_frames)
        items.append(
            CaptionedItem(
                frames=np.stack([scene.frames[t] for t in window]),
                captions=[scene.caption],
                frame_captions=[scene.caption],
                twist=twist[start : start + num_frames],
            )
        )
    return items


def facts_of(config: GeneralDataConfig) -> dict[str, object]:
    """Return which captioned sets a run used as plain JSON, for model cards; where they lie is left out."""
    return {name: value for name, value in asdict(config).items() if name not in ("path", "num_workers")}
