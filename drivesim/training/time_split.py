"""Which part of a recorded data set is held out: its last one, by time, never frames from among those learned from.

Neighbouring frames are almost the same picture. Clips chosen at random would be known by heart, and a world model that
only remembers would look like one that understands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 2 / 3  # of the share that is asked for, where more would cut a scene


@dataclass(kw_only=True, slots=True, frozen=True)
class Segment:
    """Frames ``first`` to ``stop`` (not included) of a scene."""

    scene: str
    first: int
    stop: int

    def __len__(self) -> int:
        """Return the number of frames."""
        return self.stop - self.first


@dataclass(kw_only=True, slots=True)
class TimeSplit:
    """What is learned from, and what came after it."""

    train: list[Segment]
    held_out: list[Segment]

    @property
    def words(self) -> str:
        """Say what is held out, in a few words."""
        first = self.held_out[0]
        is_cut = any(segment.scene == first.scene for segment in self.train)
        names = [segment.scene for segment in self.held_out]
        parts = [f"frames {first.first} to {first.stop - 1} of {first.scene}"] if is_cut else []
        whole = names[1:] if is_cut else names
        if len(whole) > 1:
            parts.append(f"{len(whole)} scenes from {whole[0]} to {whole[-1]}")
        elif whole:
            parts.append(f"scene {whole[0]}")
        return " and ".join(parts)


def split_by_time(lengths: Sequence[tuple[str, int]], *, share: float, gap_frames: int) -> TimeSplit:
    """Hold out the last frames: whole scenes if that comes near the share, else the end of a scene too.

    Args:
        lengths: scenes in order of time, with their frames.
        share: of all frames, that is held out; whole scenes may come to somewhat less or more.
        gap_frames: left out between the two parts where a scene is cut, so that no clip reaches into both.
    """
    total = sum(count for _, count in lengths)
    wanted, most = share * total, 2 * share * total
    held_out: list[Segment] = []
    taken, position = 0, len(lengths)
    while taken < wanted:
        position -= 1
        name, count = lengths[position]
        is_too_much = taken + count > most or position == 0
        if is_too_much and taken >= ENOUGH * wanted:  # a sliver of another scene adds nothing
            position += 1
            break
        first = max(0, count - max(1, round(wanted - taken))) if is_too_much else 0
        held_out.insert(0, Segment(scene=name, first=first, stop=count))
        taken += count - first
        if first > 0:
            break
    train = [Segment(scene=name, first=0, stop=count) for name, count in lengths[:position]]
    rest = max(0, held_out[0].first - gap_frames)
    if rest > 0:
        train.append(Segment(scene=held_out[0].scene, first=0, stop=rest))
    return TimeSplit(train=train, held_out=held_out)
