"""How policies are named: ``NAME@key=value,key=value`` with settings for it, and lists of such names.

Values are read as numbers, ``true``, ``false`` and ``none``; anything else, or what stands in quotes, is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from drivesim.errors import InputError

SETTINGS_HELP = (
    "with settings as in cem@num_samples=64,replan_every=2; agent.zip is a Stable-Baselines3 checkpoint"
)
"""What a flag that takes policies says of their settings."""

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}
_SETTING = re.compile(r"[A-Za-z_]\w*=")


@dataclass(kw_only=True, slots=True, frozen=True)
class NamedPolicy:
    """A policy's name taken apart."""

    target: str  # short name, module:Class, or file
    settings: dict[str, Any] = field(default_factory=dict)


def parse_policy(name: str) -> NamedPolicy:
    """Take ``NAME@key=value,key=value`` apart; ``agent.zip`` is ``stable-baselines@checkpoint=agent.zip``.

    Raises:
        InputError: a setting without a value, or one that is named twice.
    """
    target, text = split_settings(name)
    settings: dict[str, Any] = {}
    for piece in text.split(",") if text else ():
        if not _SETTING.match(piece):
            raise InputError(
                f"setting {piece!r} of policy {target!r} has no value; write {target}@{piece or 'key'}=VALUE"
            )
        key, _, value = piece.partition("=")
        if key in settings:
            raise InputError(f"setting {key!r} of policy {target!r} is given twice; keep one of them")
        settings[key] = _value(value)
    if target.endswith(".zip"):
        if "checkpoint" in settings:
            raise InputError(
                f"setting 'checkpoint' of policy {target!r} is that file already; write "
                f"stable-baselines@checkpoint={settings['checkpoint']} for the other"
            )
        return NamedPolicy(target="stable-baselines", settings={"checkpoint": target, **settings})
    return NamedPolicy(target=target, settings=settings)


def split_settings(name: str) -> tuple[str, str]:
    """Return the name without settings, and the settings as they were written.

    An ``@`` in a folder's name separates nothing: what follows it is a path.
    """
    marks = [found.start() for found in re.finditer("@", name)]
    marks.sort(
        key=lambda mark: _SETTING.match(name, mark + 1) is None
    )  # stable: the first that a setting follows
    for mark in marks:
        text = name[mark + 1 :]
        if _SETTING.match(text) or not ("/" in text or text.endswith((".py", ".zip"))):
            return name[:mark], text or ","
    return name, ""


def with_setting(name: str, key: str) -> str:
    """Return what to write for a policy with one more setting."""
    return f"{name}{',' if split_settings(name)[1] else '@'}{key}=VALUE"


def split_policies(text: str) -> list[str]:
    """Return the names of a list with commas; commas between the settings of one policy separate no names."""
    names: list[str] = []
    for piece in text.split(","):
        if names and _SETTING.match(piece) and split_settings(names[-1])[1]:
            names[-1] += f",{piece}"
        elif piece:
            names.append(piece)
    return names


def _value(text: str) -> Any:
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
