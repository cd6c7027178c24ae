"""Models by name, folder and repository, without a network: the Hub's functions are replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors, hub_mixin
from safetensors import safe_open
from small_models import small_video_model, small_world_model

from drivesim import hub
from drivesim.checkpoint import read_checkpoint, resolve_weights, save_module
from drivesim.errors import InputError
from drivesim.world_model.pretrained import load_tokenizer, load_world_model
from drivesim.world_model.video_model import VideoModel
from drivesim.world_model.world_model import WorldModel

FACTS = {"task": "world-model", "step": 7, "metrics": {"gain_db_at_1": 1.5}, "date": "2026-11-30"}


@pytest.fixture(scope="module")
def model() -> WorldModel:
    model = small_world_model()
    model.facts = dict(FACTS)
    return model


@pytest.fixture(scope="module")
def folder(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "my model"
    model.save_pretrained(folder)
    return folder


class FakeHub:
    """One repository; remembers what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []
        self.error: Exception | None = None

    def hf_hub_download(self, repo_id: str, filename: str, **settings: Any) -> str:
        self.asked.append((repo_id, filename, settings))
        if self.error is not None:
            raise self.error
        return str(self.folder / filename)


@pytest.fixture
def fake_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(folder)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.hf_hub_download)
    hub.fetched.cache_clear()
    return fake


def header(path: Path) -> dict[str, str]:
    """Return what a file says of itself, a hash of its tensors included."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def assert_same_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value.half().float(), atol=0, rtol=0)


def test_a_folder_holds_weights_configuration_and_card(model: WorldModel, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["kind"] == "world-model"
    assert config["config"]["stpt"]["dim"] == 32
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: drivesim\n")
    assert '| metrics | {"gain_db_at_1": 1.5} |' in card
    assert 'WorldModel.from_pretrained("PATH")' in card
    assert read_checkpoint(folder / "model.safetensors", kind="world-model").facts == FACTS


def test_what_was_saved_is_read_and_saved_again_unchanged(
    model: WorldModel, folder: Path, tmp_path: Path
) -> None:
    again = WorldModel.from_pretrained(folder)
    assert_same_weights(model, again)
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    again.save_pretrained(tmp_path)
    assert header(tmp_path / "model.safetensors") == header(folder / "model.safetensors")


def test_a_card_that_is_there_stays(model: WorldModel, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_shipped_names_files_and_folders_are_taken(folder: Path) -> None:
    assert WorldModel.from_pretrained("drive-tiny").facts["task"]
    assert_same_weights(
        WorldModel.from_pretrained(folder), WorldModel.from_pretrained(folder / "model.safetensors")
    )
    assert load_world_model(folder).config.stpt.dim == 32
    assert load_tokenizer(folder).codebook_size == 48


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("user/repo", None, None),
        ("user/repo", "v2", "v2"),
        ("hf://user/repo", None, None),
        ("hf://user/repo@v3", None, "v3"),
    ],
)
def test_repositories_are_fetched(
    fake_hub: FakeHub, model: WorldModel, name: str, revision: str | None, expected: str | None
) -> None:
    found = WorldModel.from_pretrained(
        name, revision=revision, cache_dir="cache", token="secret", local_files_only=True
    )
    assert_same_weights(model, found)
    [(repo, filename, settings)] = fake_hub.asked
    assert (repo, filename, settings["revision"]) == ("user/repo", "model.safetensors", expected)
    assert (settings["cache_dir"], settings["token"]) == ("cache", "secret")
    assert settings["local_files_only"] is True


def test_weights_named_anywhere_may_lie_on_the_hub(fake_hub: FakeHub, folder: Path) -> None:
    from drivesim.episode import EpisodeConfig
    from drivesim.shared_models import models_of

    assert resolve_weights("hf://user/repo@main") == folder / "model.safetensors"
    world_model, head = models_of(EpisodeConfig(weights="hf://user/repo@main"), None, None)
    assert world_model.config.stpt.dim == 32
    assert head is None
    assert len(fake_hub.asked) == 1  # the file is looked for once in a process


def test_an_override_may_name_a_revision() -> None:
    from drivesim.config import load_config

    assert load_config("rollout", ["episode.weights=hf://user/repo@v1"]).episode.weights.endswith("repo@v1")


NO_ENTRY = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)  # another name before 1.0


def answer(code: int) -> Any:
    return SimpleNamespace(headers={}, request=None, status_code=code)


class ConnectError(Exception):
    """What the network's library raises is no OSError, and its name changes from release to release."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            lambda: errors.RepositoryNotFoundError("404", response=answer(404)),
            "there is no user/repo on the Hub",
        ),
        (lambda: errors.GatedRepoError("403", response=answer(403)), "must be asked for"),
        (lambda: errors.RevisionNotFoundError("404", response=answer(404)), "has no revision 'v9'"),
        (
            lambda: NO_ENTRY("404", response=answer(404)),
            r"pytorch_model\.bin, are never read",
        ),
        (lambda: errors.LocalEntryNotFoundError("offline"), "not in the local cache"),
        (lambda: errors.HfHubHTTPError("500 oh\nno", response=answer(500)), r"refused .*\(500 oh\)"),
        (lambda: ConnectError("cut"), r"broke off \(cut\)"),
        (lambda: OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(fake_hub: FakeHub, error: Any, words: str) -> None:
    fake_hub.error = error()
    with pytest.raises(InputError, match=words) as raised:
        WorldModel.from_pretrained("user/repo", revision="v9")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["hf://user", "hf://user/repo@", "hf://a/b/c", "hf://"])
def test_addresses_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="write hf://USER/REPO"):
        WorldModel.from_pretrained(name)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"holds no model\.safetensors.*pickle can run code"):
        WorldModel.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        WorldModel.from_pretrained(tmp_path / "pytorch_model.bin")


def test_damaged_and_foreign_files_are_refused(folder: Path, model: WorldModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    whole = (folder / "model.safetensors").read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        WorldModel.from_pretrained(tmp_path)
    path.write_bytes(whole[:-50] + bytes(50))
    with pytest.raises(InputError, match="is damaged"):
        WorldModel.from_pretrained(tmp_path)
    save_module(model.tokenizer, path, kind="tokenizer", config=model.tokenizer.config)
    with pytest.raises(InputError, match="holds a tokenizer"):
        WorldModel.from_pretrained(tmp_path)


def test_names_of_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"no weights named 'drive-tini'.*hf://USER/REPO"):
        WorldModel.from_pretrained("drive-tini")


class FakeApi:
    """Keeps what is pushed."""

    pushed: dict[str, bytes]

    def __init__(self, **_: Any) -> None:
        FakeApi.pushed = {}

    def create_repo(self, repo_id: str, **settings: Any) -> Any:
        assert settings["private"] is True
        return type("Url", (), {"repo_id": repo_id})()

    def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> str:
        FakeApi.pushed = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        return f"https://example.org/{repo_id}/commit/1"


def test_a_model_is_pushed_with_its_card(
    model: WorldModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_mixin, "HfApi", FakeApi)
    assert model.push_to_hub("user/repo", private=True) == "https://example.org/user/repo/commit/1"
    assert sorted(FakeApi.pushed) == ["README.md", "config.json", "model.safetensors"]
    (tmp_path / "pushed").write_bytes(FakeApi.pushed["model.safetensors"])
    assert header(tmp_path / "pushed") == header(folder / "model.safetensors")
    card = FakeApi.pushed["README.md"].decode()
    assert "# repo" in card
    assert 'WorldModel.from_pretrained("user/repo")' in card


def test_a_push_that_is_refused_is_one_sentence(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(FakeApi):
        def create_repo(self, repo_id: str, **settings: Any) -> Any:
            raise errors.HfHubHTTPError("401 Unauthorized", response=answer(401))

    monkeypatch.setattr(hub_mixin, "HfApi", Refusing)
    with pytest.raises(InputError, match=r"refused user/repo .*401.* check name, token"):
        model.push_to_hub("user/repo")
    with pytest.raises(InputError, match="write USER/REPO"):
        model.push_to_hub("repo")


def test_a_folder_that_cannot_be_written_is_said(model: WorldModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write"):
        model.save_pretrained(tmp_path / "file" / "folder")


def test_video_models_go_the_same_way(tmp_path: Path) -> None:
    model = small_video_model()
    model.facts = {"task": "video-model"}
    model.save_pretrained(tmp_path / "first")
    again = VideoModel.from_pretrained(tmp_path / "first")
    assert again.facts == model.facts
    again.save_pretrained(tmp_path / "second")
    twice = VideoModel.from_pretrained(tmp_path / "second")
    for name, value in again.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[name], value, atol=1e-6, rtol=1e-3)
    with pytest.raises(InputError, match="holds a video-model"):
        WorldModel.from_pretrained(tmp_path / "first")


def test_models_are_imported_without_the_hub() -> None:
    code = "import sys, drivesim.world_model.pretrained; sys.exit('huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
