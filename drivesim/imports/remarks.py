"""What is said of a recording: a plain sentence is a note; what was lost, and what has to be checked, is marked.

All are strings, so that readers keep one list of sentences in the order in which they found things.
"""

from __future__ import annotations

import re
from collections.abc import Iterable


class Loss(str):
    """A sentence on something that was left out."""

    __slots__ = ()


class Check(str):
    """A sentence on a guess that, if it is wrong, makes the data wrong; it names the flag that says it right."""

    __slots__ = ()


def of_all(remarks: Iterable[tuple[str, str]]) -> list[str]:
    """Return one line for each remark, with the name of its recording.

    Remarks that differ only in their numbers are said once, with how many other recordings they are true of.
    """
    groups: dict[str, list[str]] = {}
    for name, remark in remarks:
        groups.setdefault(re.sub(r"\d+(\.\d+)?", "0", remark), []).append(f"{name}: {remark}")
    return [
        lines[0] if len(lines) == 1 else f"{lines[0]} (and in {len(lines) - 1} more)"
        for lines in groups.values()
    ]
