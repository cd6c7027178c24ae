"""Picture files of any size as a sequence that reads a file when it is indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from drivesim.scene.types import Image
from drivesim.video import read_image


@dataclass(slots=True)
class PictureFiles(Sequence[Image]):
    """The pictures of some files as they are, (H, W, 3); InputError names one that cannot be read."""

    paths: list[Path]

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Image]:
        """Read the pictures one after another."""
        return (read_image(path) for path in self.paths)

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> PictureFiles: ...

    def __getitem__(self, index: int | slice) -> Image | PictureFiles:
        """Read one picture, or return the sequence of a part of them without reading."""
        if isinstance(index, slice):
            return PictureFiles(self.paths[index])
        return read_image(self.paths[index])
