"""Recording the reference world to disk, and the embedded data set as a record of today's reference world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drivesim.errors import InputError
from drivesim.reference.mini import MINI_PLANS
from drivesim.reference.simulator import ReferenceWorld, WorldSpec, draw_spec
from drivesim.reference.synth import ScenePlan, synthesize
from drivesim.scene.nuscenes import embedded_dataset, open_dataset


def test_synthesized_scenes_load_and_name_their_worlds(tmp_path: Path) -> None:
    done: list[int] = []
    count = synthesize(tmp_path / "set", num_scenes=2, seed=70, duration_s=1.0, on_progress=done.append)
    assert (count, done) == (2, [1, 2])
    dataset = open_dataset(tmp_path / "set")
    scenes = [dataset.load(name) for name in dataset.scene_names()]
    assert [WorldSpec.from_log_name(scene.log_name) for scene in scenes] == [draw_spec(70), draw_spec(71)]
    assert [len(scene) for scene in scenes] == [7, 7]
    assert all(scene.problems == [] and scene.caption for scene in scenes)


def test_refusals(tmp_path: Path) -> None:
    for num_scenes, seed in ((0, 1), (1, -1), (2, 949_999)):
        with pytest.raises(InputError, match="seeds from 0 to 949999"):
            synthesize(tmp_path / "set", num_scenes=num_scenes, seed=seed)
    with pytest.raises(InputError, match="reserved"):
        ScenePlan(spec=WorldSpec(family="winding", seed=950_000))
    with pytest.raises(InputError, match="at least 1 s"):
        ScenePlan(spec=WorldSpec(family="winding", seed=1), duration_s=0.5)
    assert not list(tmp_path.iterdir())


def test_embedded_scenes_show_the_reference_world_as_it_is() -> None:
    """Fails when the reference world changed: then record the set again (drivesim/data/README.md)."""
    dataset = embedded_dataset()
    names = dataset.scene_names()
    assert len(names) == len(MINI_PLANS)
    for name, plan in list(zip(names, MINI_PLANS, strict=True))[::3]:
        scene, world = dataset.load(name), ReferenceWorld(plan.spec)
        assert scene.log_name == plan.spec.log_name
        np.testing.assert_allclose(scene.xy_m[0], [world.ego.x_m, world.ego.y_m], atol=1e-3)
        error = world.render().astype(float) - scene.frames[0]
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 28
