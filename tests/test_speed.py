"""The two speed benchmarks run and count what they say."""

import pytest
from small_models import small_world_model

from benchmarks import reference_speed, speed
from drivesim.errors import InputError
from drivesim.world_model.world_model import WorldModel


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return small_world_model()


def test_speed_reports_env_stages_batches_and_memory(model: WorldModel) -> None:
    result = speed.measure(model, num_steps=4, batch_sizes=[2]).as_dict()
    assert result["env_steps_per_s"] == pytest.approx(1e3 / result["env_step_ms"])
    assert set(result["stage_ms"]) == {"transformer", "logits", "picture", "rest"}
    assert result["imagined_frames_per_s"]["batch 2"] > 0
    assert result["peak_memory_mb"] > 50


def test_the_clock_leaves_the_model_as_it_was(model: WorldModel) -> None:
    with speed.StageClock(model):
        assert "decode" in vars(model.tokenizer)
    assert "decode" not in vars(model.tokenizer)
    assert "frame" not in vars(model.stpt)


def test_speed_refuses_nothing_to_time(model: WorldModel) -> None:
    with pytest.raises(InputError, match="--steps"):
        speed.measure(model, num_steps=0, batch_sizes=[1])
    with pytest.raises(InputError, match="--worlds"):
        reference_speed.measure(first_seed=900_000, num_worlds=0, num_frames=5)


def test_reference_speed_counts_frames_of_all_worlds() -> None:
    report = reference_speed.measure(first_seed=900_000, num_worlds=2, num_frames=3)
    result = report.as_dict()
    assert result["pictures_per_s"] > result["frames_per_s"] >= result["slowest_world_frames_per_s"] > 0
    assert result["frames_per_s_with_building"] < result["frames_per_s"]
