"""Nouns of captioned media: an item, and the one interface of every source of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from drivesim.scene.media import MediaFile


@dataclass(kw_only=True, slots=True, frozen=True)
class CaptionedMedia:
    """A video or picture and what it shows."""

    key: str  # unique in its source
    caption: str  # empty if there is none
    media: MediaFile

    @property
    def is_image(self) -> bool:
        """Tell whether it is a picture."""
        return self.media.is_image


class CaptionedSource(Protocol):
    """Captioned media by index. Nothing of the media is read before ``drivesim.scene.captioned_clips`` asks for it."""

    num_missing: int  # listed, but not there: what a partial download left out

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def item(self, index: int) -> CaptionedMedia:
        """Return the item at ``index``.

        Raises:
            InputError: its caption cannot be read.
        """
        ...


def one_line(text: str) -> str:
    """Return a caption without line breaks and runs of blanks."""
    return " ".join(text.split())
