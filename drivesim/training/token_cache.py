"""Tokens of recorded clips, computed once, so that world-model training never waits for pictures.

For every frame the cache holds its tokens, the tokens of the past as the model will see it, and what the motion field
expects from that past. In half of the clips the past is the truth. In the others it is what a world model imagined, put
back to the truth now and then, so that training meets the very mistakes that pile up in a rollout. An untrained
transformer imagines what its motion field expects and nothing else, which is where a first run begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.checkpoint import tensor_hash
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.files import atomic_folder, reserve_space
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.data import MOTION_ARRAYS, RecordedClips
from drivesim.training.token_clips import CACHE_ARRAYS, Array, DrivenFrames
from drivesim.world_model.conditioning import LOOK_DIM
from drivesim.world_model.motion import Rays, camera_rays
from drivesim.world_model.places import unpacked_view
from drivesim.world_model.world_model import Outlook, WorldModel, advanced
from drivesim.world_model.world_state import WorldState

RESET_PROBABILITY = 0.08
COPIED_ARRAYS = ("twist", "road")
NUM_TRUE_FRAMES = 2  # an imagined past begins after these


@dataclass(kw_only=True, slots=True)
class TokenCache:
    """Memory-mapped tokens of clips; the arrays must not be written."""

    token_ids: NDArray[np.int32]  # (N, T, S) the true frames
    context_ids: NDArray[np.int32]  # (N, T, S) the frames as later frames see them
    expected: NDArray[np.float16]  # (N, T, S, Q) latents that the motion field expects
    motion: NDArray[np.float16]  # (N, T, S, 3) seen share and image motion per token
    twist: NDArray[np.float32]  # (N, T, 2)
    road: NDArray[np.int8]  # (N, T, E, h, w) what the map says is seen
    look: NDArray[np.float16]  # (N, T, U) of the clip's first frame

    @classmethod
    def open(cls, path: Path, *, made_of: dict[str, Any]) -> TokenCache:
        """Open a cache made by :func:`build_token_cache` of the same clips with the same model.

        Args:
            path: the folder.
            made_of: what it must have been made of, see :func:`ingredients`.

        Raises:
            InputError: it was made of something else, or it cannot be read.
        """
        try:
            facts = json.loads((path / "cache.json").read_text())
            arrays: dict[str, Any] = {
                name: np.load(path / f"{name}.npy", mmap_mode="r") for name in CACHE_ARRAYS
            }
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} holds no token cache ({error}); remove it so that it is made anew"
            ) from error
        changed = [name for name, value in made_of.items() if facts.get(name) != value]
        if changed:
            raise InputError(
                f"{path} was made with another {' and '.join(changed)}; remove it or name another data.path"
            )
        return cls(**arrays)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.token_ids)

    @property
    def frames_per_clip(self) -> int:
        """Return the frames of each clip."""
        return int(self.token_ids.shape[1])

    def window(self, clip: int, start: int, num_frames: int) -> dict[str, Array]:
        """Return part of a clip: arrays (T, ...) by name."""
        return {name: getattr(self, name)[clip, start : start + num_frames] for name in CACHE_ARRAYS}

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[TokenCache]:
        """Yield these tokens for every step."""
        del start_step, seed, rank, world_size
        return repeat(self)


def hash_of(model: WorldModel) -> str:
    """Return the hash of a model's tensors, wherever they are."""
    return tensor_hash({name: value.cpu() for name, value in model.state_dict().items()})


def ingredients(clips: RecordedClips, imaginer: WorldModel, num_frames: int | None) -> dict[str, Any]:
    """Return what a cache is made of: hash of the model, frames per clip, and the recording's own facts."""
    recording = json.loads((clips.path / "set.json").read_text())
    count = clips.frames_per_clip if num_frames is None else min(num_frames, clips.frames_per_clip)
    return {
        "model": hash_of(imaginer),
        "sampler": config_to_json(imaginer.config.sampler),
        "num_frames": count,
        "recording": recording,
    }


def build_token_cache(
    clips: RecordedClips,
    imaginer: WorldModel,
    camera: Camera,
    path: Path,
    *,
    num_frames: int | None = None,
    clips_per_batch: int = 16,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Tokenize the first ``num_frames`` of all ``clips`` into the new folder ``path``.

    ``imaginer`` drives every second batch of clips; ``on_progress`` is told the clips done so far.
    """
    device = next(imaginer.parameters()).device
    rays = camera_rays(camera).to(device)
    generator = torch.Generator().manual_seed(seed)
    imaginer.eval()
    made_of = ingredients(clips, imaginer, num_frames)
    num_frames = int(made_of["num_frames"])
    with atomic_folder(path) as folder:
        arrays = _create(folder, (len(clips), num_frames), imaginer, clips.road.shape[2:])
        for index, start in enumerate(range(0, len(clips), clips_per_batch)):
            rows = slice(start, min(start + clips_per_batch, len(clips)))
            results = tokenize_clips(
                _head(clips, rows, num_frames), imaginer, rays, generator, is_imagined=index % 2 == 1
            )
            for name, value in results.items():
                arrays[name][rows] = (
                    value.float().cpu().numpy() if value.is_floating_point() else value.cpu().numpy()
                )
            if on_progress is not None:
                on_progress(rows.stop)
        for name in COPIED_ARRAYS:
            arrays[name][:] = getattr(clips, name)[:, :num_frames]
        for array in arrays.values():
            array.flush()
        (folder / "cache.json").write_text(json.dumps(made_of, indent=1))
    return TokenCache.open(path, made_of=made_of)


def _head(clips: RecordedClips, rows: slice, num_frames: int) -> RecordedClips:
    """Return the first frames of a few clips, in memory."""
    arrays = {name: getattr(clips, name)[rows, :num_frames] for name in ("frames", *MOTION_ARRAYS)}
    return replace(clips, **arrays)


def _create(
    folder: Path, size: tuple[int, int], imaginer: WorldModel, view_size: tuple[int, ...]
) -> dict[str, np.memmap[Any, Any]]:
    tokenizer = imaginer.tokenizer
    shape = (*size, tokenizer.num_tokens)
    layout: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "token_ids": (np.int32, shape),
        "context_ids": (np.int32, shape),
        "expected": (np.float16, (*shape, tokenizer.quantizer.code_dim)),
        "motion": (np.float16, (*shape, 3)),
        "twist": (np.float32, (*shape[:2], 2)),
        "road": (np.int8, (*shape[:2], *view_size)),
        "look": (np.float16, (*shape[:2], LOOK_DIM)),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=size)
        for name, (dtype, size) in layout.items()
    }
    for name in arrays:
        reserve_space(folder / f"{name}.npy")
    return arrays


@torch.no_grad()
def tokenize_clips(
    clips: DrivenFrames,
    imaginer: WorldModel,
    rays: Rays,
    generator: torch.Generator,
    *,
    is_imagined: bool,
) -> dict[str, Tensor]:
    """Return the arrays of a few clips but for the copied ones, frame after frame, as each needs the one before.

    Args:
        clips: a few clips, in memory.
        imaginer: model with the tokenizer, and the one that imagines.
        rays: of the camera.
        generator: draws where an imagined past is put back to the truth.
        is_imagined: whether the past is imagined or the truth.
    """
    device = next(imaginer.parameters()).device
    frames = torch.from_numpy(np.array(clips.frames)).to(device)
    twist = torch.from_numpy(clips.twist).to(device)
    road = torch.from_numpy(np.array(clips.road)).to(device)
    batch, num_frames = frames.shape[:2]
    is_true = torch.rand(batch, num_frames, generator=generator) < (RESET_PROBABILITY if is_imagined else 1.0)
    is_true[:, :NUM_TRUE_FRAMES] = True
    is_true = is_true.to(device)
    state = imaginer.begin(frames[:, 0], twist[:, 0], rays)
    zeros = torch.zeros(batch, imaginer.tokenizer.num_tokens, 3, device=device)
    rows = [
        {
            "token_ids": state.token_ids_BS,
            "context_ids": state.token_ids_BS,
            "expected": zeros[..., :1].expand(-1, -1, imaginer.tokenizer.quantizer.code_dim),
            "motion": zeros,
            "look": state.look_BU,
        }
    ]
    for t in range(1, num_frames):
        outlook = imaginer.outlook(state, twist[:, t], road_BVHW=unpacked_view(road[:, t]))
        is_true_B = is_true[:, t] if is_imagined else None
        true_ids, state = _next(imaginer, state, outlook, frames[:, t], is_true_B, generator)
        rows.append(
            {
                "token_ids": true_ids,
                "context_ids": state.token_ids_BS,
                "expected": outlook.expected_BSQ,
                "motion": outlook.motion_BS3,
                "look": state.look_BU,
            }
        )
    return {name: torch.stack([row[name] for row in rows], dim=1) for name in rows[0]}


def _next(
    imaginer: WorldModel,
    state: WorldState,
    outlook: Outlook,
    frames_BHWC: Tensor,
    is_true_B: Tensor | None,
    generator: torch.Generator,
) -> tuple[Tensor, WorldState]:
    """Return the true tokens, and the state after the true frame or, in the other rows, the imagined one.

    Where ``is_true_B`` is None nothing of the clip is imagined, and the memory is not kept.
    """
    pictures_BCHW = normalized(frames_BHWC)
    true_ids_BS = imaginer.tokenizer.encode(pictures_BCHW)
    if is_true_B is None:
        return true_ids_BS, advanced(state, outlook, state.memory, true_ids_BS, pictures_BCHW)
    if bool(is_true_B.all()):
        memory = imaginer.remembered(state)
        return true_ids_BS, advanced(state, outlook, memory, true_ids_BS, pictures_BCHW)
    sampled, memory, noise_BHW = imaginer.complete(state, outlook, generator=generator)
    token_ids_BS = torch.where(is_true_B.unsqueeze(-1), true_ids_BS, sampled.token_ids_BS)
    drawn_BCHW = imaginer.draw(sampled.token_ids_BS, outlook)
    pictures_BCHW = torch.where(is_true_B.view(-1, 1, 1, 1), pictures_BCHW, drawn_BCHW)
    noise_BHW = noise_BHW.masked_fill(is_true_B.view(-1, 1, 1).to(noise_BHW.device), 0.0)
    return true_ids_BS, advanced(state, outlook, memory, token_ids_BS, pictures_BCHW, noise_BHW)


def open_or_build(
    clips: RecordedClips,
    imaginer: WorldModel,
    camera: Camera,
    path: Path,
    *,
    num_frames: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Return the cache in ``path``, making it if it is not there.

    Raises:
        InputError: another model made it.
    """
    if path.exists():
        return TokenCache.open(path, made_of=ingredients(clips, imaginer, num_frames))
    return build_token_cache(clips, imaginer, camera, path, num_frames=num_frames, on_progress=on_progress)
