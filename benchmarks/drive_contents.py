"""What results depend on beyond names: short hashes of the files that policies and models come from.

Names stay the same when a file behind them changes. So a run notes the contents too, and what was driven with others
is not taken for its own. Of weights, those count that a policy's settings name, those that drivesim's own policies take
unless told otherwise, and shipped ones that a user's file, or a policy of drivesim that it builds on, has in its text.
Not seen: other modules that a policy's file imports, and the code of drivesim itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivesim.checkpoint import resolve_weights, shipped_weights
from drivesim.episode import EpisodeConfig
from drivesim.errors import InputError
from drivesim.policy_loading import POLICIES, default_settings, file_and_class
from drivesim.policy_naming import parse_policy
from drivesim.shared_models import hazard_head_name

CONTENTS = "contents"  # of files: {name: hash}, in what a run notes of itself
NUM_DIGITS = 12
OWN_PACKAGES = ("drivesim", "envs", "policies", "benchmarks")
_OWN_POLICY = re.compile(r"\bpolicies\.\w+")


def policy_contents(policy: str) -> str:
    """Return a hash of the files that a policy comes from, "" for one of drivesim's own that takes no weights."""
    files = _files_of(policy)
    return _hash_of(files) if files else ""


def contents_of_policies(policies: Sequence[str]) -> dict[str, str]:
    """Return the hashes of those that come from files."""
    found = {policy: policy_contents(policy) for policy in policies}
    return {policy: contents for policy, contents in found.items() if contents}


def contents_of_models(episode: EpisodeConfig) -> dict[str, str]:
    """Return the hashes of the world model's weights and of the hazard head, where there is one.

    Raises:
        InputError: there are no such weights.
    """
    return contents_of_weights({"weights": episode.weights, "hazard head": hazard_head_name(episode)})


def contents_of_weights(names: Mapping[str, str]) -> dict[str, str]:
    """Return the hashes of weights, given by what they are for; "" is none.

    Raises:
        InputError: there are no such weights.
    """
    return {f"{part} {name}": _hash_of([resolve_weights(name)]) for part, name in names.items() if name}


def said_of_contents(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """Return what a folder holds whose names are those of this run, but not the files behind them."""
    noted = before or {}
    changed = sorted(name for name in noted if noted[name] != now.get(name))
    if changed:
        return f"a run with other contents of {', '.join(changed)}: a file was changed since, or not counted then"
    missing = ", ".join(sorted(now.keys() - noted.keys()))
    return f"a run that did not note the contents of {missing}, so it may be of others"


def _files_of(policy: str) -> list[Path]:
    """Return the file of a policy's class, those that its settings name, and the shipped weights that it takes."""
    named = parse_policy(policy)
    target = POLICIES.get(named.target, named.target)
    path, _ = file_and_class(target)
    source = path if path is not None else _module_file(target.partition(":")[0])
    settings = _own_defaults(target) | named.settings
    found = [_file_named(value) for value in settings.values() if isinstance(value, str) and value]
    if source is not None:
        found = [source, *found, *_weights_in_text(source)]
    return list(dict.fromkeys(path for path in found if path is not None and path.is_file()))


def _own_defaults(target: str) -> dict[str, str]:
    """Return the settings by which one of drivesim's own policies takes shipped weights unless told otherwise."""
    if target.partition(".")[0] not in OWN_PACKAGES or file_and_class(target)[0] is not None:
        return {}
    try:
        defaults = default_settings(target)
    except InputError:  # said when the policy is made
        return {}
    shipped = shipped_weights()
    return {key: value for key, value in defaults.items() if isinstance(value, str) and value in shipped}


def _file_named(value: str) -> Path | None:
    """Return the file that a setting names, by itself or as weights; most settings name none."""
    try:
        return resolve_weights(value)
    except InputError:
        return None


def _weights_in_text(source: Path) -> list[Path]:
    """Return the shipped weights that a user's file, or a policy of drivesim that it builds on, names in quotes.

    The text is read and nothing is run: a file may do anything when it is imported.
    """
    if not source.is_file():
        return []
    text = source.read_text(encoding="utf-8", errors="replace")
    for module in sorted(set(_OWN_POLICY.findall(text))):
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin:
            text += Path(spec.origin).read_text(encoding="utf-8")
    return [
        resolve_weights(name) for name in shipped_weights() if re.search(f"[\"']{re.escape(name)}[\"']", text)
    ]


def _module_file(module_name: str) -> Path | None:
    """Return the file of a module of the user's; those of drivesim belong to its version."""
    if not module_name or module_name.partition(".")[0] in OWN_PACKAGES:
        return None
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):  # said when the policy is made
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _hash_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:NUM_DIGITS]
