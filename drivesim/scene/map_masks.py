"""Map masks of a data set. A city's mask has 600 million pixels; once read, it is kept packed and opened in parts."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.cache_folder import default_cache, load_arrays, save_arrays
from drivesim.scene.devkit import map_mask, packed_map_mask

MAP_RESOLUTION_M = 0.2
KEPT_FROM_PIXELS = 1 << 24  # of the file; smaller masks are read as fast as a packed one
MOST_PIXELS = 1 << 31
_MASK_VERSION = 1
_DAMAGE = (OSError, SyntaxError, ValueError, MemoryError)  # how Pillow says that a file is damaged
_PNG_HEAD, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND"
_LEAST_PNG_BYTES = 45  # signature, header and end


@dataclass(kw_only=True, slots=True)
class PackedMask:
    """A mask with eight cells to the byte, which is indexed by two slices."""

    bits: NDArray[np.uint8]  # (rows, ceil(columns / 8))
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return rows and columns."""
        return len(self.bits), self.columns

    def __getitem__(self, part: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Return a part of the mask as 0 and 1."""
        rows, columns = part
        left, right, _ = columns.indices(self.columns)
        cells = np.unpackbits(self.bits[rows, left // 8 : -(-right // 8)], axis=1)
        return cells[:, left % 8 : left % 8 + max(right - left, 0)]


class MapMasks:
    """The masks of a data root, each read when it is first asked for."""

    def __init__(self, dataroot: Path, cache: Path | None) -> None:
        """Prepare to read.

        Args:
            dataroot: folder that the names of masks are relative to.
            cache: folder to keep large masks in; None is the user's cache folder.
        """
        self._dataroot, self._cache = dataroot, cache
        self._masks: dict[str, NDArray[Any] | PackedMask | str] = {}

    def mask(self, filename: str) -> NDArray[Any] | PackedMask | str:
        """Return a mask at ``MAP_RESOLUTION_M``, or why it cannot be read."""
        if filename not in self._masks:
            self._masks[filename] = self._read(self._dataroot / filename)
        return self._masks[filename]

    def _read(self, path: Path) -> NDArray[Any] | PackedMask | str:
        try:
            data = path.read_bytes()
        except OSError as error:
            return f"map mask {path} cannot be read ({error.strerror})"
        is_whole = len(data) >= _LEAST_PNG_BYTES and _PNG_END in data[-16:]
        if not data.startswith(_PNG_HEAD) or not is_whole:
            return f"map mask {path} is truncated or no PNG"
        width, height = struct.unpack(">II", data[16:24])
        if width * height > MOST_PIXELS:
            return f"map mask {path} claims to have {width} x {height} pixels"
        if width * height < KEPT_FROM_PIXELS:
            return _decoded(path)
        kept = (self._cache or default_cache()) / "nuscenes" / f"mask-{hashlib.sha256(data).hexdigest()}.npz"
        facts = {"version": _MASK_VERSION, "resolution_m": MAP_RESOLUTION_M}
        arrays = load_arrays(kept, facts)
        if arrays is not None and set(arrays) == {"bits", "columns"}:
            return PackedMask(bits=arrays["bits"], columns=int(arrays["columns"]))
        try:
            bits, columns = packed_map_mask(path, MAP_RESOLUTION_M)
        except _DAMAGE as error:
            return _damaged(path, error)
        packed = PackedMask(bits=bits, columns=columns)
        save_arrays(kept, {"bits": packed.bits, "columns": np.array(packed.columns)}, facts)
        return packed


def _decoded(path: Path) -> NDArray[Any] | str:
    try:
        mask: NDArray[Any] = map_mask(path, MAP_RESOLUTION_M)
    except _DAMAGE as error:
        return _damaged(path, error)
    return mask


def _damaged(path: Path, error: Exception) -> str:
    return f"map mask {path} cannot be read ({' '.join(str(error).split())[:80]})"
