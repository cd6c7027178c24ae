"""Tokens of a captioned set, computed once, so that training of a video model never waits for pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.checkpoint import tensor_hash
from drivesim.errors import InputError
from drivesim.files import atomic_folder, remove_abandoned
from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.vqgan import normalized
from drivesim.training.captioned_set import CaptionedSet, mapped_array
from drivesim.world_model.pretrained import fast_dtype


@dataclass(kw_only=True, slots=True)
class CaptionedTokens:
    """Tokens of the clips and images of a set."""

    clips: NDArray[np.int32]  # (N, T, S)
    images: NDArray[np.int32]  # (M, S)
    content: CaptionedSet  # their captions and actions


def open_or_tokenize(
    content: CaptionedSet,
    tokenizer: Tokenizer,
    *,
    frames_per_batch: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> CaptionedTokens:
    """Return the tokens of a set, from ``tokens-HASH`` beside it; they are made if they are not there.

    Raises:
        InputError: that folder holds tokens of another tokenizer or set, or cannot be read.
    """
    tensors = {name: value.cpu() for name, value in tokenizer.state_dict().items()}
    digest = tensor_hash(tensors)
    made_of = {"tokenizer": digest, "content": content.set_id}
    path = content.path.parent / f"tokens-{content.path.name}-{digest[:8]}"
    remove_abandoned(path)
    if not path.exists():
        with atomic_folder(path) as folder:
            _tokenize(content, tokenizer, folder, frames_per_batch, on_progress)
            (folder / "tokens.json").write_text(json.dumps(made_of))
    return _open(path, content, made_of)


def _open(path: Path, content: CaptionedSet, made_of: dict[str, Any]) -> CaptionedTokens:
    try:
        found = json.loads((path / "tokens.json").read_text())
        clips, images = (mapped_array(path / f"{name}.npy") for name in ("clips", "images"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} holds no tokens ({error}); remove it so that it is made anew") from error
    if found != made_of:
        raise InputError(f"{path} was made of something else; remove it so that it is made anew")
    return CaptionedTokens(clips=clips, images=images, content=content)


@torch.no_grad()
def _tokenize(
    content: CaptionedSet,
    tokenizer: Tokenizer,
    folder: Path,
    frames_per_batch: int,
    on_progress: Callable[[int], None] | None,
) -> None:
    device = next(tokenizer.parameters()).device
    done = 0
    for name, frames in (("clips", content.clips), ("images", content.images)):
        flat = frames.reshape(-1, *frames.shape[-3:])
        ids = np.empty((len(flat), tokenizer.num_tokens), dtype=np.int32)
        for start in range(0, len(flat), frames_per_batch):
            batch = torch.from_numpy(np.array(flat[start : start + frames_per_batch])).to(device)
            with torch.autocast(device.type, fast_dtype(device.type)):
                ids[start : start + len(batch)] = tokenizer.encode(normalized(batch)).cpu().numpy()
            done += len(batch)
            if on_progress is not None:
                on_progress(done)
        np.save(folder / f"{name}.npy", ids.reshape(*frames.shape[:-3], tokenizer.num_tokens))
