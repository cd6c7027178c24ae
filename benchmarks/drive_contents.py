"""What results depend on beyond names: short hashes of the files that policies and models come from.

Names stay the same when a file behind them changes. So a run notes the contents too, and what was driven with others
is not taken for its own. Not seen: modules that a policy's file imports, and the code of drivesim itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from drivesim.checkpoint import resolve_weights, shipped_weights
from drivesim.episode import EpisodeConfig
from drivesim.policy_loading import POLICIES, file_and_class
from drivesim.policy_naming import parse_policy
from drivesim.shared_models import hazard_head_name

NUM_DIGITS = 12
OWN_PACKAGES = ("drivesim", "envs", "policies", "benchmarks")


def policy_contents(policy: str) -> str:
    """Return a hash of the files that a policy is named by, "" for one of drivesim's own without files."""
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
    named = {"weights": episode.weights, "hazard head": hazard_head_name(episode)}
    return {f"{part} {name}": _hash_of([resolve_weights(name)]) for part, name in named.items() if name}


def _files_of(policy: str) -> list[Path]:
    """Return the file of a policy's class, and those that its settings name, such as a checkpoint."""
    named = parse_policy(policy)
    target = POLICIES.get(named.target, named.target)
    path, _ = file_and_class(target)
    found = [path if path is not None else _module_file(target.partition(":")[0])]
    for value in named.settings.values():
        if isinstance(value, str) and value:
            shipped = value in shipped_weights()
            found.append(resolve_weights(value) if shipped else Path(value))
    return [path for path in found if path is not None and path.is_file()]


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
