"""Fixtures that every test file may use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def rng():
    """Return a random generator of fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded_torch():
    """Start every test from the same global seed."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of two scenes, not to be changed."""
    from recordings import make_scene, write_dataset  # brings the reference world along

    folder = tmp_path_factory.mktemp("nuscenes") / "set"
    return write_dataset(folder, make_scene(), make_scene(7, log_name="reference-merge-2"))


@pytest.fixture
def dataroot(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "set"))
