"""What a token set will hold, before a picture is read: its settings, its clips, their shards."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from drivesim.errors import InputError, nearest
from drivesim.scene.map_lines import EXPANSION_FOLDER
from drivesim.scene.nuscenes import NuScenesDataset
from drivesim.scene.types import front_camera
from drivesim.training.scene_source import RATE_HZ
from drivesim.training.token_cache import hash_of
from drivesim.training.token_manifest import Manifest, TokenSettings, num_shards
from drivesim.training.token_shards import vision_hash
from drivesim.world_model.pretrained import fast_dtype
from drivesim.world_model.world_model import WorldModel

_LOG = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class TokenizeConfig:
    """How a token set is made.

    An imagined past is what the given weights imagined when the set was made, as in ``token_cache``: a run that begins
    with them meets their mistakes. The set serves other runs as well, whose mistakes it then only resembles; with
    ``imagined_share=0`` nothing in it depends on the transformer.
    """

    frames_per_clip: int = 36
    stride: int = 18  # frames from the start of a clip to the start of the next
    clips_per_shard: int = 64
    imagined_share: float = 0.5  # of the clips: their past is what the weights imagined, not the truth
    validation_share: float = 0.1  # of the scenes, chosen by their names; one at least
    num_validation_clips: int = 24  # that are kept as pictures, roughly
    seed: int = 0  # of what is imagined
    num_workers: int = 2  # processes
    ray_address: str | None = None  # of a Ray cluster in their place
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        counts = (self.stride, self.clips_per_shard, self.num_validation_clips, self.num_workers)
        if self.frames_per_clip < 2 or min(counts) < 1 or self.seed < 0:
            raise InputError(
                "tokenizing needs frames_per_clip >= 2, seed >= 0 and stride, clips_per_shard, validation clips and "
                f"workers >= 1, got {self.frames_per_clip}, {self.seed} and {', '.join(map(str, counts))}"
            )
        if not 0 <= self.imagined_share <= 1 or not 0 < self.validation_share < 1:
            raise InputError(
                "the imagined share lies in [0, 1] and the validation share inside (0, 1), got "
                f"{self.imagined_share} and {self.validation_share}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"the device is auto, cpu or cuda, got {self.device!r}")


def known_scenes(dataset: NuScenesDataset, names: Sequence[str]) -> list[str]:
    """Return the scenes that were asked for, each once; all where none was.

    Raises:
        InputError: one is not there.
    """
    there = dataset.scene_names()
    for name in names:
        if name not in there:
            raise InputError(
                f"{dataset.dataroot} ({dataset.version}) has no scene {name!r}; {nearest(name, there)}"
            )
    return list(dict.fromkeys(names)) or there


def settings_of(dataset: NuScenesDataset, model: WorldModel, config: TokenizeConfig) -> TokenSettings:
    """Return all that the tokens will depend on.

    Raises:
        InputError: scenes are not read at the model's size and rate, or there is no such device.
    """
    camera, size = front_camera(), (model.config.vqgan.width_px, model.config.vqgan.height_px)
    if (camera.width_px, camera.height_px) != size or model.rate_hz != RATE_HZ:
        raise InputError(
            f"scenes are read at {camera.width_px}x{camera.height_px} px and {RATE_HZ:g} Hz, but the weights are of "
            f"{size[0]}x{size[1]} px and {model.rate_hz:g} Hz; name other weights"
        )
    device = config.device
    if device == "cuda" and config.ray_address is None and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; leave --device out, or share the work with --ray")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = fast_dtype(device)
    return TokenSettings(
        weights=hash_of(model),
        vision=vision_hash(model),
        dtype=str(dtype).removeprefix("torch."),
        device=device,
        version=dataset.version,
        tables=fingerprint(dataset.dataroot, dataset.version),
        rate_hz=RATE_HZ,
        width_px=size[0],
        height_px=size[1],
        frames_per_clip=config.frames_per_clip,
        stride=config.stride,
        clips_per_shard=config.clips_per_shard,
        imagined_share=config.imagined_share,
        validation_share=config.validation_share,
        num_validation_clips=config.num_validation_clips,
        seed=config.seed,
    )


def fingerprint(dataroot: Path, version: str) -> str:
    """Return a hash that tells data sets apart: the scene table, and the sizes of the others and of map expansions."""
    tables = dataroot / version
    digest = hashlib.sha256((tables / "scene.json").read_bytes())
    for path in [*sorted(tables.glob("*.json")), *sorted((dataroot / EXPANSION_FOLDER).glob("*.json"))]:
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def plan_of(dataset: NuScenesDataset, lengths: Mapping[str, int], settings: TokenSettings) -> Manifest:
    """Return the manifest of a set of scenes, frames by name, of which no shard is made yet.

    Raises:
        InputError: no scene is as long as a clip.
    """
    clips = [
        (name, start)
        for name, length in lengths.items()
        for start in range(0, length - settings.frames_per_clip + 1, settings.stride)
    ]
    if not clips:
        raise InputError(
            f"none of {len(lengths)} training scenes has the {settings.frames_per_clip} frames of a clip; choose "
            "longer scenes or lower --frames-per-clip"
        )
    return Manifest(
        settings=settings,
        dataroot=str(dataset.dataroot),
        clips=clips,
        shards=[None] * num_shards(len(clips), settings.clips_per_shard),
    )


def num_frames_of(dataset: NuScenesDataset, name: str) -> int:
    """Return the frames of a scene as its tables promise them; 0 if they are broken."""
    try:
        return dataset.summary(name, rate_hz=RATE_HZ).num_frames
    except InputError as error:
        _LOG.warning("scene %s left out: %s", name, error)
        return 0
