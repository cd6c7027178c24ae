"""Sets of hazard samples: made once from drives of the reference world, gone on with, and never mixed up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hazard_samples import SMALL
from small_models import small_world_model

from drivesim.errors import InputError
from drivesim.training import hazard_set, hazard_states
from drivesim.training.hazard_samples import HazardSamples, HazardSetConfig
from drivesim.training.hazard_set import open_or_make_samples

CONFIG = HazardSetConfig(
    num_drives=1,
    num_long_drives=1,
    frames_per_drive=14,
    true_states_per_drive=6,
    num_imagined=3,
    num_imagined_long=5,
)
HEAD = replace(SMALL, fsq_levels=[4, 4, 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hazards") / "set"


@pytest.fixture(scope="module")
def made(folder: Path) -> HazardSamples:
    with pytest.MonkeyPatch.context() as patch:
        model = small_world_model()
        for module in (hazard_set, hazard_states):
            patch.setattr(module, "world_model_of", lambda weights: model)
        return open_or_make_samples(folder, CONFIG, HEAD, first_seed=300_000)


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_world_model()
    for module in (hazard_set, hazard_states):
        monkeypatch.setattr(module, "world_model_of", lambda weights: model)


def test_a_set_holds_true_and_imagined_states_with_labels(made: HazardSamples) -> None:
    count = len(made)
    assert made.pictures.shape == (count, 6, 32, 56)
    assert made.token_ids.shape == (count, 112)
    assert made.facts.shape == (count, HEAD.num_facts)
    assert made.cars.shape == (count, 30)
    assert made.event.shape == (count, 2)
    assert {0, 1, 2, 3} <= set(made.depth.tolist())
    assert made.depth.max() <= 5  # of the long drive
    assert set(made.rollout[made.depth > 0].tolist()) == {0, 1}
    assert (made.rollout[made.depth == 0] == -1).all()
    assert (made.facts[made.depth == 0, 3] == 1).all()  # true states know their map
    assert np.isfinite(made.facts).all()
    assert ((made.known >= 0) & (made.known <= 6)).all()


def test_the_head_reads_the_same_of_true_and_imagined_pictures(made: HazardSamples) -> None:
    first = made.chosen((made.depth == 1) & (made.rollout == 0))
    second = made.chosen((made.depth == 2) & (made.rollout == 0))
    assert np.array_equal(first.pictures[:, :3], second.pictures[:, 3:])  # the newest becomes the one before


def test_a_set_is_made_once_and_gone_on_with(
    made: HazardSamples, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    monkeypatch.setattr(hazard_set, "make_shard", lambda job: pytest.fail("was made before"))
    again = open_or_make_samples(folder, CONFIG, HEAD, first_seed=300_000, on_progress=done.append)
    assert all(np.array_equal(getattr(again, name), getattr(made, name)) for name in made.__slots__)
    assert done == []


def test_another_set_is_not_taken_for_this_one(made: HazardSamples, folder: Path) -> None:
    with pytest.raises(InputError, match="made with other settings or weights"):
        open_or_make_samples(folder, replace(CONFIG, num_imagined=4), HEAD, first_seed=300_000)
    with pytest.raises(InputError, match="made with other settings or weights"):
        open_or_make_samples(folder, CONFIG, HEAD, first_seed=300_001)


def test_a_damaged_shard_is_named(made: HazardSamples, folder: Path) -> None:
    shard = sorted(folder.glob("*.npz"))[-1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    with pytest.raises(InputError, match=f"{shard.name} cannot be read"):
        open_or_make_samples(folder, CONFIG, HEAD, first_seed=300_000)
    shard.write_bytes(whole)
