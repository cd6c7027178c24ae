"""Configurations as plain JSON values, and back: what is not of a field's type is refused by the field's name."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from drivesim.errors import InputError

ConfigT = TypeVar("ConfigT")
REMEDY = "the weights are damaged or come from another version of drivesim: fetch or train them again"
UNBUILDABLE = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)
"""What building something of wrong sizes may raise."""
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def config_to_json(config: Any) -> Any:
    """Return a dataclass tree as plain JSON values; enums by value."""
    if is_dataclass(config):
        return {field.name: config_to_json(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, Enum):
        return config.value
    if isinstance(config, list | tuple):
        return [config_to_json(item) for item in config]
    if isinstance(config, dict):
        return {key: config_to_json(value) for key, value in config.items()}
    return config


def config_from_json(cls: type[ConfigT], values: Any) -> ConfigT:
    """Build a configuration dataclass from :func:`config_to_json`'s output.

    Raises:
        InputError: a key that the dataclass does not have, a value of another type than its field, or values that the
            dataclass refuses.
    """
    if not isinstance(values, dict):
        raise InputError(f"{cls.__name__} must have fields, got {json.dumps(values)}; {REMEDY}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(values.keys() - hints.keys())
    if unknown:
        raise InputError(f"{cls.__name__} has no field {unknown[0]!r}; {REMEDY}")
    given = {name: _value(hints[name], value, f"{cls.__name__}.{name}") for name, value in values.items()}
    try:
        return cls(**given)
    except UNBUILDABLE as error:
        raise InputError(f"{cls.__name__} cannot be: {reason_of(error)}; {REMEDY}") from error


def reason_of(error: Exception) -> str:
    """Return the first line of what an error says, to be put into a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _value(hint: Any, value: Any, name: str) -> Any:
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return None if value is None else _value(kinds[0], value, name)
    if typing.get_origin(hint) is list:
        if not isinstance(value, list):
            raise _refused(name, "a list", value)
        return [_value(typing.get_args(hint)[0], item, name) for item in value]
    if isinstance(hint, type) and is_dataclass(hint):
        return config_from_json(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value, name)
    is_whole_float = hint is float and type(value) is int
    if hint in _PLAIN and type(value) is not hint and not is_whole_float:
        raise _refused(name, _PLAIN[hint], value)
    return value


def _member(enum: type[Enum], value: Any, name: str) -> Enum:
    values = [member.value for member in enum]
    if value not in values:
        raise _refused(name, f"one of {', '.join(map(str, values))}", value)
    return enum(value)


def _refused(name: str, expected: str, value: Any) -> InputError:
    return InputError(f"{name} must be {expected}, got {json.dumps(value)}; {REMEDY}")
