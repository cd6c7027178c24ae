"""The two speed benchmarks run and count what they say."""

import importlib
import re
import time
from pathlib import Path

import pytest
import torch
from small_models import small_world_model

from benchmarks import reference_speed, speed
from drivesim.errors import InputError
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return small_world_model()


def test_speed_reports_env_stages_batches_and_memory(model: WorldModel) -> None:
    result = speed.measure(model, num_steps=4, batch_sizes=[2]).as_dict()
    assert result["env_steps_per_s"] == pytest.approx(1e3 / result["env_step_ms"])
    assert set(result["stage_ms"]) == {"transformer", "logits", "picture", "rest"}
    assert result["imagined_frames_per_s"]["batch 2"] > 0
    assert result["peak_memory_mb"] > 50
    assert result["decode_steps"] == model.config.sampler.num_decode_steps


def test_the_clock_leaves_the_model_as_it_was(model: WorldModel) -> None:
    with speed.StageClock(model):
        assert "decode" in vars(model.tokenizer)
    assert "decode" not in vars(model.tokenizer)
    assert "frame" not in vars(model.stpt)


def test_the_clock_counts_in_timed_steps_only(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    env = WorldDreamerDriveEnv(world_model=model)
    decode, calls = VQGAN.decode, []

    def slow_at_reset(self: VQGAN, token_ids_BS: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        time.sleep(0.3 if len(calls) <= model.num_context_frames else 0.0)
        return decode(self, token_ids_BS)

    monkeypatch.setattr(VQGAN, "decode", slow_at_reset)
    clock = speed.StageClock(model)
    clock._methods = [(model.tokenizer, "decode", "picture")]
    with clock:
        total_s = speed.time_env(env, 2, clock=clock)
    assert len(calls) == model.num_context_frames + speed.WARM_UP_STEPS + 2
    assert 0 < clock.seconds["picture"] < total_s


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


def test_make_bench_names_arguments_that_the_benchmarks_take() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    recipe = makefile.split("\nbench:")[1].split("\n\n")[0]
    commands = re.findall(r"-m (benchmarks\.\w+)(.*)", recipe)
    assert len(commands) == 3
    for module, arguments in commands:
        options = importlib.import_module(module).parse(arguments.split())
        assert options.out.parent == Path("out")
