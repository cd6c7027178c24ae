"""The only door to the Hugging Face Hub: weights fetched from there, and sent there; safetensors, never pickles.

huggingface_hub is imported when it is first needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from drivesim.errors import InputError
from drivesim.files import atomic_path

HUB_PREFIX = "hf://"
WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_NO_WEIGHTS = (
    f"holds no {WEIGHTS_FILE}; other formats, such as pytorch_model.bin, are never read, since a pickle can run code: "
    "save the model with save_pretrained"
)


@dataclass(kw_only=True, slots=True, frozen=True)
class HubPlace:
    """Where on the Hub weights lie, and how they are fetched."""

    repo: str
    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False


def is_repo(name: str) -> bool:
    """Tell whether a name has the form USER/REPO."""
    return _REPO.fullmatch(name) is not None


def hub_place(address: str) -> HubPlace:
    """Read ``hf://USER/REPO`` or ``hf://USER/REPO@REVISION``.

    Raises:
        InputError: it is neither.
    """
    repo, at, revision = address.removeprefix(HUB_PREFIX).partition("@")
    if not is_repo(repo) or (at and not revision):
        raise InputError(
            f"{address} names no weights on the Hub; write hf://USER/REPO or hf://USER/REPO@REVISION"
        )
    return HubPlace(repo=repo, revision=revision or None)


def weights_in(folder: Path) -> Path:
    """Return the weights in a folder that ``save_pretrained`` wrote.

    Raises:
        InputError: there are none.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{folder} {_NO_WEIGHTS}")
    return path


@cache
def fetched(place: HubPlace) -> Path:
    """Return the weights of a repository in the local cache, fetching them the first time.

    Raises:
        InputError: there is no such repository or revision, it holds no safetensors, or the Hub cannot be reached.
    """
    import huggingface_hub

    with _sentences(place.repo, place.revision):
        return Path(
            huggingface_hub.hf_hub_download(
                place.repo,
                WEIGHTS_FILE,
                revision=place.revision,
                cache_dir=place.cache_dir,
                token=place.token,
                local_files_only=place.local_files_only,
                force_download=place.force_download,
                library_name="drivesim",
            )
        )


@contextmanager
def _sentences(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub or the network refuses into one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"{repo} is not in the local cache, and the Hub was not to be asked or cannot be reached; go online for "
            "the first time, or name a file"
        ) from error
    except errors.GatedRepoError as error:
        raise InputError(f"access to {repo} must be asked for on its page on the Hub first") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"there is no {repo} on the Hub, or it is private; check the name, or log in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{repo} has no revision {revision!r}; name a branch, a tag or a commit") from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"{repo} {_NO_WEIGHTS}") from error
    except InputError:
        raise
    except Exception as error:  # the network's, whichever library huggingface_hub talks with
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the Hub refused {repo} or broke off ({first_line}); check name, token and network"
        ) from error


@dataclass(kw_only=True, slots=True)
class HostedModel:
    """What goes into a repository."""

    write_fn: Callable[[Path], None]  # writes the weights as a file
    config: dict[str, Any]
    card: str


def save_hosted(model: HostedModel, folder: Path) -> None:
    """Write weights, configuration and, if there is none, a model card into a folder.

    Raises:
        InputError: it cannot be written.
    """
    try:
        _hosted(model).save_pretrained(folder)
    except OSError as error:
        raise InputError(f"could not write {folder} ({error}); name another folder") from error


def push_hosted(model: HostedModel, repo: str, settings: dict[str, Any]) -> str:
    """Send the same to a repository, made if needed, and return the address of the commit.

    Raises:
        InputError: the Hub refuses, or cannot be reached.
    """
    with _sentences(repo):
        return str(_hosted(model).push_to_hub(repo, **settings))


def _hosted(model: HostedModel) -> Any:
    from huggingface_hub import ModelCard, ModelHubMixin

    class Hosted(ModelHubMixin):
        """A model as huggingface_hub's mixin sees it; a class of its own, as to import that takes half a second."""

        def _save_pretrained(self, save_directory: Path) -> None:
            model.write_fn(save_directory / WEIGHTS_FILE)
            with atomic_path(save_directory / CONFIG_FILE) as temporary:
                temporary.write_text(json.dumps(model.config, indent=2) + "\n", encoding="utf-8")

        def generate_model_card(self, *_: Any, **__: Any) -> Any:
            return ModelCard(model.card)

    return Hosted()
