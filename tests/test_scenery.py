"""Scenery: beside the road, never on it."""

import dataclasses

import numpy as np
import pytest
from road_samples import OFFSET_M, curved_network

from drivesim.reference.look import Look, SceneryKind
from drivesim.reference.scenery import PlantKind, PostKind, place_scenery
from drivesim.reference.surface import paint_surface

NETWORK = curved_network()


@pytest.fixture(scope="module")
def drivable():
    return paint_surface(NETWORK, offset_m=OFFSET_M, look=Look(), rng=np.random.default_rng(0)).drivable


def _place(drivable, seed=0, **fields):
    return place_scenery(NETWORK, drivable, Look(**fields), np.random.default_rng(seed), offset_m=OFFSET_M)


@pytest.mark.parametrize("kind", list(SceneryKind))
def test_nothing_stands_on_the_road(drivable, kind):
    scenery = _place(drivable, scenery=kind, is_railed=True, shoulder_m=0.5)
    circle = np.stack([np.cos(np.linspace(0, 6, 7)), np.sin(np.linspace(0, 6, 7))], axis=-1)
    assert not drivable.contains(scenery.plant_xy_m[:, None] + 1.0 * circle).any()
    assert not drivable.contains(scenery.post_xy_m).any()
    assert not drivable.contains(scenery.rail_xy_m).any()
    for pose, size in zip(scenery.house_pose, scenery.house_size_m, strict=True):
        assert not drivable.contains(pose[:2] + circle * np.hypot(size[0], size[1]) / 2).any()


def test_kinds_differ(drivable):
    forest, town, suburb = (
        _place(drivable, scenery=kind) for kind in (SceneryKind.FOREST, SceneryKind.TOWN, SceneryKind.SUBURB)
    )
    assert len(forest.plant_xy_m) > 3 * len(town.plant_xy_m)
    assert len(suburb.house_pose) > len(forest.house_pose)
    assert town.house_size_m[:, 2].mean() > suburb.house_size_m[:, 2].mean()
    assert PostKind.LAMP in town.post_kind
    assert PostKind.LAMP not in forest.post_kind
    assert set(forest.plant_kind) <= {float(kind) for kind in PlantKind}


def test_rails_only_where_asked(drivable):
    assert len(_place(drivable).rail_xy_m) == 0
    assert len(_place(drivable, is_railed=True).rail_xy_m) > 10


def test_placing_repeats_with_the_seed(drivable):
    first, again, other = _place(drivable), _place(drivable), _place(drivable, seed=1)
    for name in (field.name for field in dataclasses.fields(first)):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    assert not np.array_equal(first.plant_xy_m, other.plant_xy_m)


def test_density_scales_plants(drivable):
    sparse = _place(drivable, density=0.3, scenery=SceneryKind.FOREST)
    dense = _place(drivable, density=1.2, scenery=SceneryKind.FOREST)
    assert len(dense.plant_xy_m) > 2 * len(sparse.plant_xy_m)
    assert len(_place(drivable, density=0.0).plant_xy_m) == 0
