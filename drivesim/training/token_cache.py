"""Tokens of recorded clips, computed once, so that world-model training never waits for pictures.

For every frame the cache holds its tokens, the tokens of the past as the model will see it, and what motion
compensation of that past expects. In half of the clips the past is the truth. In the others it drifts: a frame is often
replaced by the motion-compensated frame before it, as if imagined by a model that only warps, so that training meets
what goes wrong in a rollout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from drivesim.checkpoint import tensor_hash
from drivesim.errors import InputError
from drivesim.files import atomic_folder, reserve_space
from drivesim.scene.types import Camera
from drivesim.tokenizer.vqgan import VQGAN, normalized
from drivesim.training.data import MOTION_ARRAYS, RecordedClips
from drivesim.world_model.conditioning import expected_latents
from drivesim.world_model.motion import Rays, camera_rays

RESET_PROBABILITY = 0.4
CACHE_ARRAYS = ("token_ids", "context_ids", "expected", "motion", "twist")


@dataclass(kw_only=True, slots=True)
class TokenCache:
    """Memory-mapped tokens of clips; the arrays must not be written."""

    token_ids: NDArray[np.int32]  # (N, T, S) the true frames
    context_ids: NDArray[np.int32]  # (N, T, S) the frames as later frames see them
    expected: NDArray[np.float16]  # (N, T, S, Q) motion-compensated latents of the frame before
    motion: NDArray[np.float16]  # (N, T, S, 3) seen share and image motion per token
    twist: NDArray[np.float32]  # (N, T, 2)

    @classmethod
    def open(cls, path: Path, *, made_of: dict[str, Any]) -> TokenCache:
        """Open a cache made by :func:`build_token_cache` of the same clips with the same tokenizer.

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


def ingredients(clips: RecordedClips, tokenizer: VQGAN, num_frames: int | None) -> dict[str, Any]:
    """Return what a cache is made of: hash of the tokenizer, frames per clip, and the recording's own facts."""
    recording = json.loads((clips.path / "set.json").read_text())
    count = clips.frames_per_clip if num_frames is None else min(num_frames, clips.frames_per_clip)
    return {"tokenizer": tensor_hash(tokenizer.state_dict()), "num_frames": count, "recording": recording}


@torch.no_grad()
def build_token_cache(
    clips: RecordedClips,
    tokenizer: VQGAN,
    camera: Camera,
    path: Path,
    *,
    num_frames: int | None = None,
    clips_per_batch: int = 16,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Tokenize the first ``num_frames`` of all ``clips`` into the new folder ``path``.

    ``on_progress`` is told the clips done so far.
    """
    weight = next(tokenizer.parameters())
    rays = camera_rays(camera).to(weight.device)
    generator = torch.Generator().manual_seed(seed)
    tokenizer.eval()
    made_of = ingredients(clips, tokenizer, num_frames)
    num_frames = int(made_of["num_frames"])
    with atomic_folder(path) as folder:
        arrays = _create(folder, (len(clips), num_frames), tokenizer)
        for start in range(0, len(clips), clips_per_batch):
            rows = slice(start, min(start + clips_per_batch, len(clips)))
            with torch.autocast(weight.device.type, torch.bfloat16):
                results = _tokenize(_head(clips, rows, num_frames), tokenizer, rays, generator)
            for name, value in results.items():
                arrays[name][rows] = value.cpu().numpy()
            if on_progress is not None:
                on_progress(rows.stop)
        arrays["twist"][:] = clips.twist[:, :num_frames]
        for array in arrays.values():
            array.flush()
        (folder / "cache.json").write_text(json.dumps(made_of, indent=1))
    return TokenCache.open(path, made_of=made_of)


def _head(clips: RecordedClips, rows: slice, num_frames: int) -> RecordedClips:
    """Return the first frames of a few clips, in memory."""
    arrays = {name: getattr(clips, name)[rows, :num_frames] for name in ("frames", *MOTION_ARRAYS)}
    return replace(clips, **arrays)


def _create(folder: Path, size: tuple[int, int], tokenizer: VQGAN) -> dict[str, np.memmap[Any, Any]]:
    shape = (*size, tokenizer.num_tokens)
    layout: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "token_ids": (np.int32, shape),
        "context_ids": (np.int32, shape),
        "expected": (np.float16, (*shape, tokenizer.quantizer.code_dim)),
        "motion": (np.float16, (*shape, 3)),
        "twist": (np.float32, (*shape[:2], 2)),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=size)
        for name, (dtype, size) in layout.items()
    }
    for name in arrays:
        reserve_space(folder / f"{name}.npy")
    return arrays


def _tokenize(
    clips: RecordedClips, tokenizer: VQGAN, rays: Rays, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the arrays of a few clips, frame after frame, as the imagined past needs the frame before."""
    device = next(tokenizer.parameters()).device
    frames = torch.from_numpy(np.array(clips.frames))
    twist = torch.from_numpy(clips.twist).to(device)
    batch, num_frames = frames.shape[:2]
    is_truthful = torch.rand(batch, 1, generator=generator) < 0.5
    is_reset = torch.rand(batch, num_frames, generator=generator) < RESET_PROBABILITY
    is_true = (is_truthful | is_reset).to(device)
    first = tokenizer.encode(normalized(frames[:, 0].to(device)))
    seen = tokenizer.decode(first)
    true_ids, context_ids = [first], [first]
    expected = [torch.zeros(*first.shape, tokenizer.quantizer.code_dim, device=device)]
    motion = [torch.zeros(*first.shape, 3, device=device)]
    for t in range(1, num_frames):
        ids = tokenizer.encode(normalized(frames[:, t].to(device)))
        guess, moved = expected_latents(tokenizer, seen, rays, twist[:, t], 1.0 / clips.rate_hz)
        drifted = tokenizer.quantizer.nearest(guess)
        context = torch.where(is_true[:, t].unsqueeze(-1), ids, drifted)
        seen = tokenizer.decode(context)
        true_ids.append(ids)
        context_ids.append(context)
        expected.append(guess)
        motion.append(moved)
    stacked = {"token_ids": true_ids, "context_ids": context_ids, "expected": expected, "motion": motion}
    return {name: torch.stack(values, dim=1) for name, values in stacked.items()}


def crop(cache: TokenCache, clip: int, start: int, num_frames: int) -> dict[str, Tensor]:
    """Return a window of a clip as tensors (T, ...)."""
    window = slice(start, start + num_frames)
    arrays = {name: getattr(cache, name)[clip, window] for name in CACHE_ARRAYS}
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def stack(crops: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return windows as one batch (B, T, ...)."""
    return {name: rearrange([crop[name] for crop in crops], "b ... -> b ...") for name in crops[0]}


def open_or_build(
    clips: RecordedClips,
    tokenizer: VQGAN,
    camera: Camera,
    path: Path,
    *,
    num_frames: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> TokenCache:
    """Return the cache in ``path``, making it if it is not there.

    Raises:
        InputError: another tokenizer made it.
    """
    if path.exists():
        return TokenCache.open(path, made_of=ingredients(clips, tokenizer, num_frames))
    return build_token_cache(clips, tokenizer, camera, path, num_frames=num_frames, on_progress=on_progress)
