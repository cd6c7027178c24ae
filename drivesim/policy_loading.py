"""What a policy is, and how one is found: by short name, by ``module:Class``, or in a file of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError, nearest
from drivesim.policy_naming import parse_policy, with_setting
from drivesim.scene.types import Image

Action = NDArray[np.float32]
"""(2,): road-wheel steering angle in rad, left positive; target speed in m/s."""

_HAND_WRITTEN = {
    "constant": "policies.constant:ConstantPolicy",
    "replay": "policies.replay:ReplayPolicy",
    "pure-pursuit": "policies.pure_pursuit:PurePursuitPolicy",
    "idm": "policies.idm:IdmPolicy",
    "lane-keeping": "policies.lane_keeping:LaneKeepingPolicy",
}
_BAD_ON_PURPOSE = {
    "timid": "policies.timid:TimidPolicy",
    "reckless": "policies.reckless:RecklessPolicy",
    "late-steering": "policies.late_steering:LateSteeringPolicy",
    "oscillating": "policies.oscillating:OscillatingPolicy",
    "left-drifting": "policies.left_drifting:LeftDriftingPolicy",
    "blind": "policies.blind:BlindPolicy",
    "random": "policies.random_actions:RandomPolicy",
}
_PLANNING_AND_LEARNED = {
    "cem": "policies.cem:CemPolicy",
    "mppi": "policies.cem:MppiPolicy",
    "behavior-cloning": "policies.behavior_cloning:BehaviorCloningPolicy",
    "stable-baselines": "policies.stable_baselines:StableBaselinesPolicy",
}
POLICIES = {**_HAND_WRITTEN, **_BAD_ON_PURPOSE, **_PLANNING_AND_LEARNED}
"""Short names of the policies that come with drivesim."""

POLICY_HELP = (
    f"{', '.join(POLICIES)}, module:Class, or a file such as my_policy.py; settings follow as in cem@num_samples=64; "
    "agent.zip is short for stable-baselines@checkpoint=agent.zip."
)
"""What a flag that takes a policy says of itself."""

_BY_NAME = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@runtime_checkable
class Policy(Protocol):
    """Anything that drives."""

    def select_action(self, observation: Image, info: dict[str, Any]) -> Action:
        """Return the (2,) float32 action for an (H, W, 3) uint8 picture and the environment's info."""
        ...


def load_policy(name: str, **kwargs: Any) -> Policy:
    """Make a policy, with keyword arguments for it.

    Args:
        name: a short name, a dotted ``module:Class``, or a file: ``my_policy.py:Mine``, or only ``my_policy.py``
            where a single class in it has ``select_action``. Settings may follow: ``NAME@key=value,key=value``; and
            ``agent.zip`` is short for ``stable-baselines@checkpoint=agent.zip``.
        kwargs: for the class; settings in the name go before them.

    Raises:
        InputError: unknown name, module, file or class, one that cannot be imported or made, arguments that do not
            fit, or no ``select_action``.
    """
    named = parse_policy(name)
    return _made(name, _policy_class(named.target), kwargs | named.settings)


def make_policy(name: str, *, seed: int | None, **kwargs: Any) -> Policy:
    """Make a policy as :func:`load_policy` does; ``seed`` reaches it where its class takes a ``seed``."""
    named = parse_policy(name)
    policy_class = _policy_class(named.target)
    if _takes_seed(policy_class):
        kwargs["seed"] = seed
    return _made(name, policy_class, kwargs | named.settings)


def _made(name: str, policy_class: Callable[..., Any], kwargs: dict[str, Any]) -> Policy:
    _check_settings(name, policy_class, kwargs)
    try:
        policy = policy_class(**kwargs)
    except InputError:
        raise
    except Exception as error:  # whatever the user's class raises
        raise InputError(f"policy {name!r} cannot be made: {_words(error)}; --debug shows where") from error
    if not isinstance(policy, Policy):
        raise InputError(
            f"policy {name!r} has no select_action(observation, info); add that method to {policy_class.__name__}"
        )
    return policy


def _check_settings(name: str, policy_class: Callable[..., Any], kwargs: dict[str, Any]) -> None:
    """Refuse settings that a policy does not take, and the lack of one that it needs."""
    try:
        signature = inspect.signature(policy_class)
    except ValueError:  # classes written in C may have no signature
        return
    parameters = {key: one for key, one in signature.parameters.items() if one.kind in _BY_NAME}
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    for key in kwargs:
        if key not in parameters and not takes_all:
            remedy = nearest(key, list(parameters)) if parameters else "it takes none"
            raise InputError(f"policy {name!r} has no setting {key!r}; {remedy}")
    for key, one in parameters.items():
        if one.default is inspect.Parameter.empty and key not in kwargs:
            raise InputError(f"policy {name!r} needs the setting {key!r}; add it: {with_setting(name, key)}")
    try:
        signature.bind(**kwargs)
    except TypeError as error:  # parameters that have no name to be given by
        raise InputError(f"policy {name!r} cannot be made with {kwargs}: {error}") from error


def default_settings(name: str) -> dict[str, Any]:
    """Return what the settings of a policy's class are unless they are given; its module is imported for it.

    Raises:
        InputError: there is no such policy, or it cannot be imported.
    """
    policy_class = _policy_class(parse_policy(name).target)
    try:
        parameters = inspect.signature(policy_class).parameters
    except ValueError:  # classes written in C may have no signature
        return {}
    return {key: one.default for key, one in parameters.items() if one.default is not inspect.Parameter.empty}


def _takes_seed(policy_class: Callable[..., Any]) -> bool:
    try:
        parameter = inspect.signature(policy_class).parameters.get("seed")
    except ValueError:  # classes written in C may have no signature
        return False
    return parameter is not None and parameter.kind in _BY_NAME


def _policy_class(name: str) -> Any:
    target = POLICIES.get(name, name)
    path, class_name = file_and_class(target)
    if path is not None:
        module = _imported_file(path)
        return _only_driver(path, module) if class_name == "" else _class_in(module, str(path), class_name)
    module_name, separator, class_name = target.partition(":")
    if not (separator and module_name and class_name):
        raise InputError(
            f"there is no policy {name!r}; {nearest(name, list(POLICIES))}, or write module:Class or a file's path"
        )
    return _class_in(_imported_module(module_name), module_name, class_name)


def file_and_class(target: str) -> tuple[Path | None, str]:
    """Split ``path/to/file.py:Class``; the path is None where no file is named, the class may be missing."""
    if target.endswith(".py"):
        return Path(target), ""
    path, separator, class_name = target.rpartition(":")
    return (Path(path), class_name) if separator and path.endswith(".py") else (None, "")


def _imported_module(module_name: str) -> ModuleType:
    """Import a module; modules beside the user's working directory count too."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        spec = importlib.util.find_spec(module_name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {module_name!r}")
    except (ImportError, ValueError) as error:  # also a package on the way that cannot be imported
        raise InputError(f"cannot import the policy module {module_name!r}: {error}") from error
    try:
        return importlib.import_module(module_name)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise _import_failure(spec.origin or module_name, error) from error


def _imported_file(path: Path) -> ModuleType:
    """Import a file once for each state it was saved in; what lies beside it can be imported by it."""
    if not path.is_file():
        beside = [entry.name for entry in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise InputError(f"there is no policy file {str(path)!r}; {nearest(path.name, beside)}")
    full = path.resolve()
    digest = zlib.crc32(f"{full}:{full.stat().st_mtime_ns}:{full.stat().st_size}".encode())
    name = f"policy_file_{full.stem}_{digest:08x}"
    if name in sys.modules:
        return sys.modules[name]
    if str(full.parent) not in sys.path:
        sys.path.append(str(full.parent))
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        del sys.modules[name]
        raise _import_failure(str(full), error, shown=str(path)) from error
    return module


def _import_failure(file: str, error: BaseException, *, shown: str = "") -> InputError:
    """Return the sentence that names the file, and its line that could not be run."""
    line = _failing_line(file, error)
    place = f"line {line} of {shown or file}" if line else (shown or file)
    return InputError(f"the policy cannot be imported, {place} fails with {_words(error)}")


def _failing_line(file: str, error: BaseException) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _words(error: BaseException) -> str:
    """Return an error's kind and the first line of what it says."""
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {said.splitlines()[0]}" if said else type(error).__name__


def _class_in(module: ModuleType, place: str, class_name: str) -> Any:
    found = getattr(module, class_name, None)
    if not callable(found):
        raise InputError(
            f"module {place!r} has no class {class_name!r}; {nearest(class_name, _classes(module))}"
        )
    return found


def _only_driver(path: Path, module: ModuleType) -> Any:
    """Return the one class of a file that drives."""
    drivers = [
        name
        for name in _classes(module)
        if getattr(module, name).__module__ == module.__name__
        and callable(getattr(getattr(module, name), "select_action", None))
    ]
    if len(drivers) == 1:
        return getattr(module, drivers[0])
    if not drivers:
        raise InputError(
            f"no class in {str(path)!r} has select_action(observation, info); add that method to one"
        )
    raise InputError(
        f"{str(path)!r} has {len(drivers)} policies, {', '.join(drivers)}; choose one, such as {path}:{drivers[0]}"
    )


def _classes(module: ModuleType) -> list[str]:
    return [
        name for name, value in vars(module).items() if inspect.isclass(value) and not name.startswith("_")
    ]
