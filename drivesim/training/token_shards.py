"""A token set of `drivesim tokenize` as training reads it: windows straight from memory-mapped safetensors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from drivesim.checkpoint import tensor_hash
from drivesim.errors import InputError
from drivesim.training.token_clips import CACHE_ARRAYS, Array
from drivesim.training.token_manifest import Manifest, file_hash, read_manifest, shard_path
from drivesim.world_model.world_model import WorldModel

VISION_PARTS = ("tokenizer.", "motion_field.")
NUM_NAMED = 5  # files that an error names


@dataclass(kw_only=True, slots=True)
class TokenSetConfig:
    """The tokens a run learns from, made by `drivesim tokenize`."""

    path: str = ""
    verify: bool = True  # compare every shard with its checksum before the run; their sizes always are


class ShardedTokens:
    """Tokens of clips in shards. A shard is mapped when a window of it is asked for; its pages are read as needed."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Read what :meth:`open` has checked."""
        self.path, self.manifest = path, manifest
        counts = [record.num_clips for record in manifest.shards if record is not None]
        self._ends = list(accumulate(counts))
        self._mapped: dict[int, dict[str, Array]] = {}

    @classmethod
    def open(cls, path: Path, *, is_verified: bool = False) -> ShardedTokens:
        """Open a finished set; every shard must be there in its full size.

        Args:
            path: the folder.
            is_verified: compare the contents with their checksums too, which reads everything once.

        Raises:
            InputError: there is no set, it is not finished, it has no clips, or shards are damaged.
        """
        manifest = read_manifest(path)
        if manifest.missing:
            raise InputError(
                f"the tokens in {path} are not finished: {len(manifest.missing)} of {len(manifest.shards)} shards "
                "are missing; run `drivesim tokenize` again with the same settings"
            )
        refuse_damaged(path, damaged_shards(path, manifest, is_hashed=is_verified))
        if manifest.num_clips == 0:
            raise InputError(f"the tokens in {path} have no clips; no picture of the scenes could be read")
        return cls(path, manifest)

    def __len__(self) -> int:
        """Return the number of clips."""
        return self._ends[-1]

    @property
    def frames_per_clip(self) -> int:
        """Return the frames of each clip."""
        return self.manifest.settings.frames_per_clip

    def window(self, clip: int, start: int, num_frames: int) -> dict[str, Array]:
        """Return part of a clip: arrays (T, ...) by name, views of the mapped files."""
        number = bisect_right(self._ends, clip)
        row = clip - (self._ends[number - 1] if number else 0)
        mapped = self._mapped.get(number)
        if mapped is None:
            mapped = self._mapped[number] = self._map(number)
        return {name: array[row, start : start + num_frames] for name, array in mapped.items()}

    def per_step(self, *, start_step: int, seed: int, rank: int, world_size: int) -> Iterator[ShardedTokens]:
        """Yield these tokens for every step."""
        del start_step, seed, rank, world_size
        return repeat(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the maps out: another process opens its own."""
        return {**self.__dict__, "_mapped": {}}

    def _map(self, number: int) -> dict[str, Array]:
        path, record = shard_path(self.path, number), self.manifest.shards[number]
        assert record is not None
        size = (record.num_clips, self.frames_per_clip)
        try:
            with safe_open(path, framework="pt") as file:  # its tensors are views of the mapped file
                arrays = {name: file.get_tensor(name).numpy() for name in CACHE_ARRAYS}
        except (OSError, SafetensorError) as error:
            raise InputError(f"shard {path} cannot be read ({error}); {_remedy(self.path)}") from error
        if any(array.shape[:2] != size for array in arrays.values()):
            raise InputError(f"shard {path} has not the clips that the manifest names; {_remedy(self.path)}")
        return arrays


def damaged_shards(
    path: Path,
    manifest: Manifest,
    *,
    is_hashed: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> list[int]:
    """Return the numbers of finished shards whose file is missing or has another size or, if asked, another hash."""
    found = []
    for number, record in enumerate(manifest.shards):
        file = shard_path(path, number)
        if record is not None and (
            not file.is_file()
            or file.stat().st_size != record.num_bytes
            or (is_hashed and file_hash(file) != record.sha256)
        ):
            found.append(number)
        if on_progress is not None:
            on_progress(number + 1)
    return found


def refuse_damaged(path: Path, numbers: list[int]) -> None:
    """Raise InputError that names damaged shards, if there are any."""
    if numbers:
        names = ", ".join(shard_path(path, number).name for number in numbers[:NUM_NAMED])
        more = f" and {len(numbers) - NUM_NAMED} more" if len(numbers) > NUM_NAMED else ""
        raise InputError(f"damaged or missing in {path}: {names}{more}; {_remedy(path)}")


def vision_hash(model: WorldModel) -> str:
    """Return the hash of tokenizer and motion field, in half precision, as weights that were saved again have it."""
    state = model.state_dict()
    return tensor_hash(
        {
            name: value.cpu().half() if value.is_floating_point() else value.cpu()
            for name, value in state.items()
            if name.startswith(VISION_PARTS)
        }
    )


def check_vision(tokens: ShardedTokens, model: WorldModel, *, init: str) -> None:
    """Refuse a model that sees other tokens in pictures, or expects other motion, than the one that made the tokens.

    Raises:
        InputError: it is such a model.
    """
    codebook_size, found = model.tokenizer.codebook_size, vision_hash(model)
    made = tokens.manifest.settings.vision
    if found != made:
        raise InputError(
            f"the tokens in {tokens.path} were made by another tokenizer or motion field ({made[:12]}) than that of "
            f"{init} ({found[:12]}, {codebook_size} codes); begin with the weights that made them, or run "
            f"`drivesim tokenize --weights {init}` into another folder"
        )


def as_stored(arrays: dict[str, torch.Tensor], codebook_size: int) -> dict[str, torch.Tensor]:
    """Return arrays of clips as shards keep them: tokens in two bytes where that is enough, latents in halves."""
    token_dtype = torch.int16 if codebook_size <= torch.iinfo(torch.int16).max + 1 else torch.int32
    dtypes = {
        "token_ids": token_dtype,
        "context_ids": token_dtype,
        "expected": torch.float16,
        "motion": torch.float16,
        "twist": torch.float32,
        "road": torch.int8,
        "look": torch.float16,
    }
    return {name: arrays[name].to("cpu", dtypes[name]).contiguous() for name in CACHE_ARRAYS}


def _remedy(path: Path) -> str:
    return f"remove them and run `drivesim tokenize --out {path}` again with the same settings, which makes them anew"
