"""The CAN bus expansion of nuScenes: messages and planned route of a scene, one file per kind of message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drivesim.scene.can_motion import Messages
from drivesim.scene.faults import Fault
from drivesim.scene.nuscenes_lists import WITHOUT_CAN, number_of

CAN_MESSAGES = ("pose", "steeranglefeedback", "vehicle_monitor")


@dataclass(kw_only=True, slots=True)
class CanFiles:
    """What a scene has of the CAN bus."""

    messages: dict[str, Messages] = field(default_factory=dict)  # of CAN_MESSAGES that are there
    route: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # files that are there and cannot be read


def read_can_files(dataroot: Path, scene_name: str) -> CanFiles:
    """Read the files of a scene; nuScenes has none of some scenes, and other data sets may have none at all."""
    found = CanFiles()
    number = number_of(scene_name)
    if number is None or number in WITHOUT_CAN:
        return found
    for message in (*CAN_MESSAGES, "route"):
        path = dataroot / "can_bus" / f"{scene_name}_{message}.json"
        content = _content(path, found.problems)
        if content is None:
            continue
        if message == "route":
            found.route = content
        else:
            found.messages[message] = content
    return found


def _content(path: Path, problems: list[str]) -> list[Any] | None:
    if path.exists() and not path.is_file():
        problems.append(Fault(f"CAN bus file {path.name} is not a file"))
        return None
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "truncated or not JSON"
        problems.append(Fault(f"CAN bus file {path.name} cannot be read ({reason})"))
        return None
    if not isinstance(content, list):
        problems.append(Fault(f"CAN bus file {path.name} is not a list of messages"))
        return None
    return content
