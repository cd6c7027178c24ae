"""What nuScenes itself says of its scenes: which lack CAN messages, whose route or pose is wrong, which leave the map.

Kept here because importing the devkit, which has the first two lists, takes two seconds; a test holds them equal.
"""

from __future__ import annotations

import re

WITHOUT_CAN = frozenset((*range(161, 169), *range(170, 177), *range(309, 315)))
"""The devkit's ``NuScenesCanBus.can_blacklist``."""

_RUNS = [
    (71, 71), (73, 76), (85, 85), (100, 101), (106, 110), (112, 119), (261, 264), (276, 276), (302, 306), (334, 334),
    (388, 390), (436, 436), (499, 502), (504, 515), (517, 518), (547, 551), (556, 565), (730, 731), (733, 738),
    (778, 778), (780, 784), (904, 905), (1073, 1074),
]  # fmt: skip
MISALIGNED_ROUTE = frozenset(number for first, last in _RUNS for number in range(first, last + 1))
"""The devkit's ``NuScenesCanBus.route_blacklist``: more than 5 m off the poses."""

WRONG_POSE = frozenset((499, 515, 517))
"""Their ego poses are known to be wrong (boston-seaport)."""

OUTSIDE_MAP = frozenset((501, 502))
"""They lie outside the map of boston-seaport."""


def number_of(scene_name: str) -> int | None:
    """Return the number in a name as nuScenes gives them, ``scene-0061``; None for any other name."""
    match = re.fullmatch(r"scene-(\d{4})", scene_name, re.ASCII)
    return int(match[1]) if match else None
