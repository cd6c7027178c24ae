"""Models that are loaded by name, saved as folders and pushed to the Hub, in the manner of huggingface_hub."""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import nn

from drivesim.checkpoint import resolve_weights, shipped_weights
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.hub import (
    HUB_PREFIX,
    HostedModel,
    HubPlace,
    fetched,
    hub_place,
    is_repo,
    push_hosted,
    save_hosted,
)

_CARD = """---
library_name: drivesim
tags:
- drivesim
- {kind}
---
# {title}

A {kind} of [drivesim](https://pypi.org/project/drivesim/): {what}.

| | |
|---|---|
{rows}

```python
{usage}
```

What the file cannot know: under which licence the weights may be used, and what they should not be used for.
"""


class HubModel(nn.Module):
    """A model with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    A folder or repository holds ``model.safetensors``, whose header has the configuration, a hash and the facts of the
    training, ``config.json`` with the configuration for readers, and a model card made of the facts.
    """

    kind: ClassVar[str]
    what: ClassVar[str]
    config: Any
    facts: dict[str, Any]
    """What is known of the training; kept by files."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> Self:
        """Load a model for use: not in training, without gradients.

        Args:
            name_or_path: shipped weights by name, a file, a folder, or a repository of the Hub, as ``USER/REPO`` or
                ``hf://USER/REPO@REVISION``.
            revision: branch, tag or commit of the repository.
            cache_dir: where files of the Hub are kept, by default where huggingface_hub keeps them.
            token: for private repositories; by default the one of ``hf auth login``.
            local_files_only: take what the cache has and do not ask the Hub.
            force_download: fetch again what the cache has.
            device: where the model runs.
            dtype: of the weights. In float32 they can be saved as they were read; bfloat16 is faster where the device
                multiplies it fast.
            **settings: of this kind of model.

        Raises:
            InputError: no such weights, no safetensors, damaged, of another kind, or the Hub cannot be reached.
        """
        place = _place_of(name_or_path, revision)
        if place is None:
            path = resolve_weights(name_or_path)
        else:
            path = fetched(
                replace(
                    place,
                    cache_dir=cache_dir,
                    token=token,
                    local_files_only=local_files_only,
                    force_download=force_download,
                )
            )
        return cls._read(path, device=device, dtype=dtype, **settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write weights, configuration and, if there is none yet, a model card into a folder.

        Raises:
            InputError: the folder cannot be written, or the weights are not finite.
        """
        save_hosted(self._hosted("PATH"), Path(folder))

    def push_to_hub(self, repo: str, **settings: Any) -> str:
        """Send the model to a repository of the Hub, made if needed, and return the address of the commit.

        Args:
            repo: ``USER/REPO``.
            **settings: of ``huggingface_hub.ModelHubMixin.push_to_hub``: ``private``, ``token``, ``branch``,
                ``commit_message``, ``create_pr``.

        Raises:
            InputError: the Hub refuses, or cannot be reached.
        """
        if not is_repo(repo):
            raise InputError(f"{repo} is no repository of the Hub; write USER/REPO")
        return push_hosted(self._hosted(repo), repo, settings)

    @classmethod
    @abstractmethod
    def _read(cls, path: Path, *, device: str, dtype: torch.dtype, **settings: Any) -> Self:
        """Load a file."""

    @abstractmethod
    def _write(self, path: Path) -> None:
        """Write a file."""

    def _hosted(self, repo: str) -> HostedModel:
        config = {"kind": self.kind, "drivesim": version("drivesim"), "config": config_to_json(self.config)}
        return HostedModel(write_fn=self._write, config=config, card=self._card(repo))

    def _card(self, repo: str) -> str:
        name = type(self).__name__
        usage = [
            f"from {type(self).__module__} import {name}",
            "",
            f'model = {name}.from_pretrained("{repo}")',
        ]
        rows = {"parameters": f"{sum(p.numel() for p in self.parameters()):,}"}
        rows |= {name: _cell(value) for name, value in self.facts.items()}
        return _CARD.format(
            kind=self.kind,
            title=repo.rpartition("/")[2] if "/" in repo else f"drivesim {self.kind}",
            what=self.what,
            rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
            usage="\n".join(usage),
        )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split()).replace("|", "\\|")


def _place_of(name_or_path: str | Path, revision: str | None) -> HubPlace | None:
    """Return the place on the Hub that is meant; none for shipped weights, files and folders."""
    name = str(name_or_path)
    if name.startswith(HUB_PREFIX):
        place = hub_place(name)
        return place if revision is None else replace(place, revision=revision)
    if name in shipped_weights() or Path(name).exists() or not is_repo(name):
        return None
    return HubPlace(repo=name, revision=revision)
