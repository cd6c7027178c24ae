"""Typed run configurations: defaults live in dataclasses, yaml names experiments, Hydra only composes.

``DictConfig`` never leaves this file: what comes out are the dataclasses themselves, validated.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.rollout import EpisodeConfig

if TYPE_CHECKING:
    from drivesim.training.config import TrainConfig

GROUPS = ("experiment",)
FINE_TUNING_KEYS = ("data", "init")  # with plain values they are short for those of ``fine_tuning``
RECORDED_PACKAGES = ["drivesim", "torch", "numpy", "gymnasium", "highway-env", "nuscenes-devkit", "av"]


@dataclass(kw_only=True, slots=True)
class PolicyConfig:
    """Which policy drives: a short name, or ``module:Class`` or a file of your own, with its keyword arguments."""

    target: str = "pure-pursuit"
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """One rollout: what is driven, by whom, for how long."""

    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    num_steps: int | None = None  # None drives until the episode ends; more than its horizon raises that
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a rollout without steps and seeds that generators do not take."""
        if self.num_steps is not None and self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if self.num_steps is not None and self.num_steps > self.episode.horizon:
            self.episode = replace(self.episode, horizon=self.num_steps)

    @property
    def most_steps(self) -> int:
        """Return how many steps the rollout has at most."""
        return self.num_steps or self.episode.horizon


@overload
def load_config(name: Literal["rollout"], overrides: Sequence[str] = ()) -> RunConfig: ...
@overload
def load_config(
    name: Literal["train"], overrides: Sequence[str] = (), *, saved: Path | None = None
) -> TrainConfig: ...


def load_config(name: str, overrides: Sequence[str] = (), *, saved: Path | None = None) -> Any:
    """Compose ``configs/<name>.yaml`` with ``key=value`` overrides over the defaults of the dataclasses.

    Args:
        name: "rollout" for a :class:`RunConfig`, "train" for a ``TrainConfig``.
        overrides: such as ``episode.weights=my.safetensors`` or ``experiment=drive_tiny``; ``policy.kwargs``
            takes new keys, and ``data=FOLDER init=NAME`` stand for ``fine_tuning.data`` and ``fine_tuning.init``.
        saved: a ``config.yaml`` of :func:`save_run_files` whose values stand in for the defaults.

    Raises:
        InputError: an unknown key (with the nearest valid ones), or a value of the wrong type or range.
    """
    schema = _schema(name)
    start = schema if saved is None else _read(saved, schema)
    ConfigStore.instance().store(name=f"{name}_schema", node=start)
    written = [_written_out(text) for text in overrides] if name == "train" else list(overrides)
    structure = OmegaConf.structured(schema)
    checked = [_checked_override(text, structure) for text in written]
    try:
        with initialize_config_dir(str(configs_folder()), version_base="1.3", job_name="drivesim"):
            composed = compose(name, overrides=checked)
        config: Any = OmegaConf.to_object(composed)
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        raise InputError(f"bad configuration: {_sentence(error)}") from error
    if (
        name == "train"
        and not config.fine_tuning.data
        and any(text.startswith("init=") for text in overrides)
    ):
        raise InputError(
            "init=WEIGHTS needs data=FOLDER, the recordings that they are fitted to; other runs begin with "
            "world_model.init=WEIGHTS"
        )
    return config


def override(key: str, value: str | int | float) -> str:
    """Return ``key=value`` for :func:`load_config`, with text quoted so that spaces and signs are safe."""
    if not isinstance(value, str):
        return f"{key}={value}"
    # Inside quotes Hydra reads backslashes as such, except those that stand before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value)
    return f"{key}='{escaped}'"


def configs_folder() -> Path:
    """Return the folder of yaml files: the checkout's where there is one, else the installed package's."""
    checkout = Path(__file__).parent.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "configs"
    return Path(__file__).parent / "configs"


def config_keys(name: str) -> list[str]:
    """Return every key of a configuration in dotted form, such as ``episode.scene``."""
    return sorted(_keys(OmegaConf.structured(_schema(name))))


def save_run_files(config: object, out: Path) -> None:
    """Write ``config.yaml`` (every value) and ``versions.json`` (git hash, packages) into ``out``."""
    with atomic_path(out / "config.yaml") as path:
        path.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
    with atomic_path(out / "versions.json") as path:
        path.write_text(json.dumps(versions(), indent=2) + "\n", encoding="utf-8")


def _schema(name: str) -> type[Any]:
    if name == "rollout":
        return RunConfig
    if name == "train":
        from drivesim.training.config import TrainConfig  # brings the training stack along, so not at the top

        return TrainConfig
    raise ValueError(f"no configuration is named {name!r}; there are rollout and train")


def _read(path: Path, schema: type[Any]) -> Any:
    """Return the configuration that :func:`save_run_files` wrote."""
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path)))
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not a configuration of this version ({_sentence(error)}); "
            "correct it, or remove it and give all settings again"
        ) from error


def _written_out(text: str) -> str:
    """Return ``data=FOLDER`` and ``init=NAME`` with the keys that they stand for; a folder may hold any characters."""
    key, _, value = text.partition("=")
    if key not in FINE_TUNING_KEYS or value.startswith("{"):
        return text
    if value[:1] in ("'", '"'):
        value = str(_parsed(text).value())
    if not value:
        raise InputError(f"{key}= is empty; name {'a folder' if key == 'data' else 'weights'}")
    return override(f"fine_tuning.{key}", value)


def _checked_override(text: str, structure: DictConfig) -> str:
    """Return the override as Hydra wants it, after a look at its key."""
    override = _parsed(text)
    key = override.key_or_group
    if override.is_delete():
        raise InputError(f"{text!r} would remove {key}; only key=value is understood")
    if key in GROUPS:
        _check_option(key, str(override.value()))
        return f"{key}={override.value()}"
    keys = set(_keys(structure))
    if key in keys:
        return _with_enum_name(text.lstrip("+"), structure, key)
    if any(key.startswith(f"{name}.") for name in _open_mappings(structure)):
        return f"++{text.lstrip('+')}"
    valid = [*keys, *GROUPS]
    nearest = get_close_matches(key, valid, n=3, cutoff=0.5) or _same_ending(key, valid)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"the parts are {', '.join(structure)}"
    raise InputError(f"unknown configuration key {key!r}; {hint}")


def _parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise InputError(
            f"cannot read {text!r}; write key=value, with quotes around special characters"
        ) from error


def _with_enum_name(text: str, structure: DictConfig, key: str) -> str:
    """Let an enumeration be named by its value too, in any case: ``order=random`` for RANDOM."""
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(structure, parent) if parent else structure
    kind: type[Enum] | None = getattr(node._get_node(name), "enum_type", None)
    value = _parsed(text).value()
    if kind is None or value is None:
        return text
    for member in kind:
        if str(value).lower() in (member.name.lower(), str(member.value).lower()):
            return f"{key}={member.name}"
    raise InputError(f"{key} is one of {', '.join(str(member.value) for member in kind)}, got {value!r}")


def _check_option(group: str, option: str) -> None:
    options = sorted(path.stem for path in (configs_folder() / group).glob("*.yaml"))
    if option not in options:
        raise InputError(f"there is no {group} {option!r}; choose one of: {', '.join(options)}")


def _keys(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, node):
        yield f"{prefix}{name}"
        if OmegaConf.is_dict(node._get_node(name)):
            yield from _keys(node[name], f"{prefix}{name}.")


def _open_mappings(node: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, node):
        if not OmegaConf.is_dict(node._get_node(name)):
            continue
        if OmegaConf.get_type(node, name) is dict:
            yield f"{prefix}{name}"
        else:
            yield from _open_mappings(node[name], f"{prefix}{name}.")


def _same_ending(key: str, keys: Sequence[str]) -> list[str]:
    """Return keys whose last part is nearest: ``horizon`` finds ``episode.horizon``."""
    by_ending: dict[str, list[str]] = {}
    for name in sorted(keys):
        by_ending.setdefault(name.rsplit(".", 1)[-1], []).append(name)
    endings = get_close_matches(key.rsplit(".", 1)[-1], by_ending, n=2, cutoff=0.6)
    return [name for ending in endings for name in by_ending[ending]][:3]


def _sentence(error: BaseException) -> str:
    """Return the first line of the error, or of its cause in OmegaConf, with the key that stands below."""
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _sentence(error.__cause__)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    return f"{keys[0]}: {lines[0]}" if keys and keys[0] else lines[0]


def versions() -> dict[str, Any]:
    """Return the git hash of the checkout, and the versions of Python and of the packages that matter."""
    packages: dict[str, str] = {}
    for name in RECORDED_PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {"git": git_hash(), "python": platform.python_version(), "packages": packages}


def git_hash() -> str | None:
    """Return the checkout's commit, with "-dirty" when files differ; None outside a checkout."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
