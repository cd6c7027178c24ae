"""Picture files of one recording as a sequence that reads a file, as it is, when it is indexed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from drivesim.errors import InputError
from drivesim.scene.types import Image
from drivesim.video import read_image


@dataclass(slots=True)
class PictureFiles(Sequence[Image]):
    """Files that become (H, W, 3) pictures; InputError names one that is bad or of another size than the others."""

    paths: list[Path]
    size: tuple[int, int] | None = None  # (height, width); that of the first readable picture

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Image]:
        """Read the pictures one after another."""
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Image: ...

    @overload
    def __getitem__(self, index: slice) -> PictureFiles: ...

    def __getitem__(self, index: int | slice) -> Image | PictureFiles:
        """Read one picture, or return the sequence of a part of the files without reading them."""
        if isinstance(index, slice):
            return PictureFiles(self.paths[index], self.size)
        image = read_image(self.paths[index])
        if self.size is not None and image.shape[:2] != self.size:
            raise InputError(
                f"image {self.paths[index]} has {image.shape[1]}x{image.shape[0]} px, the others of the recording "
                f"{self.size[1]}x{self.size[0]}; leave it out"
            )
        return image


def pictures_of(paths: list[Path]) -> PictureFiles:
    """Return the pictures of a recording, all of the size of the first that can be read.

    Raises:
        InputError: none can be read.
    """
    problem: InputError | None = None
    for path in paths:
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            problem = problem or error
            continue
        return PictureFiles(paths, (height, width))
    raise problem or InputError("there are no pictures; name the folder of the recording")
