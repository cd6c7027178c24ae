"""The speed benchmarks run and count what they say."""

import importlib
import json
import re
import time
from pathlib import Path

import pytest
import torch
from small_models import small_world_model

from benchmarks import compiled, env_speed, growth, reference_speed, speed, speed_tables, vector_speed
from benchmarks import timing as timing_module
from benchmarks.imagined_step import imagined_step, with_size, with_window
from benchmarks.stages import StageClock
from benchmarks.timing import Timing, take_turns
from drivesim.checkpoint import save_module, weights_hash
from drivesim.errors import InputError
from drivesim.tokenizer.vqgan import VQGAN
from drivesim.world_model.compiled import FRAME_PASSES
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv
from envs.world_dreamer_vector import WorldDreamerVectorEnv

RATIOS = ("autoregressive", "autoregressive_same_depth", "uncached", "uncached_same_rounds", "diffusion30")


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return small_world_model()


@pytest.fixture
def _small_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "WINDOWS", (3, 4))
    monkeypatch.setattr(growth, "ROUNDS", (1, 2))
    monkeypatch.setattr(growth, "SIZES_PX", ((64, 128), (64, 112)))
    for name, value in {"LARGE": 64, "MEMORY_MB": 4, "MIN_FLOPS": 1e5, "NUM_CACHE_COPIES": 9}.items():
        monkeypatch.setattr(f"benchmarks.roofline.{name}", value)
    monkeypatch.setattr("benchmarks.decoders.comparison.PRECISION_ROUNDS", 1)


@pytest.mark.usefixtures("_small_curves")
def test_speed_reports_what_readme_documents(model: WorldModel, capsys: pytest.CaptureFixture[str]) -> None:
    config = speed.SpeedConfig(
        num_steps=3, num_rounds=1, batch_sizes=[2], num_long_steps=2, is_batch_compared=False
    )
    report = speed.measure(model, config)
    result = json.loads(json.dumps(report.as_dict()))
    assert result["env_steps_per_s_batch1"] == result["env_steps_per_s"] > 0
    assert result["env_steps_per_s"] == pytest.approx(1e3 / result["env_step_ms"])
    assert result["env_step_ms_min"] <= result["env_step_ms_median"] <= result["env_step_ms_max"]
    assert {"conditioning", "decoding_rounds", "commit", "tokenizer_decode", "rest"} <= set(
        result["stage_ms"]
    )
    for name in RATIOS:
        assert result[f"speedup_vs_{name}"] == pytest.approx(
            result["decoder_ms"][name] / result["decoder_ms"]["ours"]
        )
        assert result[f"speedup_vs_{name}_min"] <= result[f"speedup_vs_{name}_max"]
    assert result["decoder_precision"]["batch 1"].keys() == {"ours", *RATIOS}
    assert {"ours fp32", "ours bf16"} <= set(result["decoder_precision_ms"])
    assert set(result["step_ms_by_window"]) == {"3", "4"}
    assert set(result["step_ms_by_rounds"]) == {"1", "2"}
    assert set(result["step_ms_by_batch"]) == set(result["batch_frames_per_s"]) == {"1", "2", "8"}
    assert set(result["step_ms_by_resolution"]) == {"64x128"}  # 7 columns of tokens do not cut into patches
    assert {"cost_growth_after_2", "memory_growth_mb_after_2"} <= set(result)
    assert (
        50 < result["peak_memory_mb"] <= result["peak_memory_mb_batch8"] <= result["peak_memory_mb_whole_run"]
    )
    assert set(result["stage_ms_batch8"]) == set(result["stage_ms"])
    assert sum(result["stage_ms_batch8"].values()) == pytest.approx(result["env_step_ms_batch8"])
    assert 0 < result["env_own_ms_batch8"] < result["env_step_ms_batch8"]
    assert min(result["resident_memory_mb"], result["resident_memory_mb_batch8"]) > 50
    assert {"resident_growth_mb", "resident_growth_mb_batch8"} <= set(result)
    assert result["vector_speedup_batch8"] == pytest.approx(1 / result["per_env_cost_batch8_vs_batch1"])
    assert 0 < result["saved_state_kb"] < 64
    assert min(result["save_state_ms"], result["restore_state_ms"]) > 0
    assert result["decode_steps"] == model.config.sampler.num_decode_steps
    assert set(result["stage_roof_ms"]) <= set(result["stage_ms"])
    speed_tables.show(report)
    shown = capsys.readouterr().out
    for title in (
        "what this machine can do",
        "where the time goes",
        "where the time goes with 8 cars",
        "memory of the process",
        "decoders of one budget",
        "against window",
    ):
        assert title in shown


def test_what_a_car_costs_among_eight_is_told_three_ways() -> None:
    report = speed.Report(title="speed")
    vector_speed.add_batches(report, {1: Timing(samples_s=[0.04]), 8: Timing(samples_s=[0.2])})
    result = report.as_dict()
    assert result["env_steps_per_s_batch8"] == pytest.approx(8 / 0.2)
    assert result["per_env_cost_batch8_vs_batch1"] == pytest.approx(0.2 / 8 / 0.04)
    assert result["vector_speedup_batch8"] == pytest.approx(1.6)


def test_turns_alternate_and_keep_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    timings = take_turns(
        "turns", {name: lambda name=name: calls.append(name) for name in "ab"}, num_rounds=3, num_warm_up=2
    )
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"
    assert {name: len(timing.samples_s) for name, timing in timings.items()} == {"a": 3, "b": 3}
    calls.clear()
    in_a_row = take_turns(
        "rows", {name: lambda name=name: calls.append(name) for name in "ab"}, num_rounds=2, num_calls=3
    )
    assert "".join(calls) == "ab" + "aaabbb" + "bbbaaa"
    assert {name: len(timing.samples_s) for name, timing in in_a_row.items()} == {"a": 2, "b": 2}
    seconds = iter([1.0, 3.0])
    monkeypatch.setattr(timing_module, "seconds_of", lambda call: next(seconds))
    mean = take_turns("mean", {"a": lambda: None}, num_rounds=1, num_warm_up=0, num_calls=2)
    assert mean["a"].samples_s == [2.0]
    timing = Timing(samples_s=[3.0, 1.0, 2.0])
    assert (timing.median_s, timing.min_s, timing.max_s) == (2.0, 1.0, 3.0)


def test_an_imagined_step_goes_on_for_all_cars(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    env = WorldDreamerDriveEnv(world_model=model)
    imagine, states = model.imagine, []
    monkeypatch.setattr(
        model, "imagine", lambda state, *a, **k: states.append(state) or imagine(state, *a, **k)
    )
    step = imagined_step(model, env.scene.camera, batch_size=2)
    step()
    step()
    first, second = states
    assert first.token_ids_BS.shape[0] == 2
    assert first.memory[0].keys.shape[3] == model.config.stpt.window - 1  # as large as it will ever be
    assert torch.equal(second.num_frames_B, first.num_frames_B + 1)


def test_other_sizes_change_what_they_name(model: WorldModel) -> None:
    config = with_window(with_size(model.config, (64, 128)), 9)
    assert (config.vqgan.height_px, config.vqgan.width_px, config.stpt.window) == (64, 128, 9)
    assert model.config.stpt.window != 9


def test_the_clock_leaves_the_model_as_it_was(model: WorldModel) -> None:
    with StageClock(model):
        assert "decode" in vars(model.tokenizer)
    assert "decode" not in vars(model.tokenizer)
    assert "imagine" not in vars(model)


def test_the_clock_counts_in_timed_steps_only(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    env = WorldDreamerDriveEnv(world_model=model)
    decode, calls = VQGAN.decode, []

    def counted(self: VQGAN, token_ids_BS: torch.Tensor) -> torch.Tensor:
        calls.append(len(calls))
        time.sleep(0.02)
        return decode(self, token_ids_BS)

    monkeypatch.setattr(VQGAN, "decode", counted)
    with StageClock(model) as clock:
        env.reset(seed=0)
        at_reset = len(calls)
        calls.clear()
        timing = env_speed.time_env(env, 2, clock=clock).timing
    assert len(calls) == at_reset + env_speed.WARM_UP_STEPS + 2
    assert len(timing.samples_s) == 2
    decode_s = clock.stages["tokenizer_decode"]
    assert 0.04 <= decode_s < clock.model_total < sum(timing.samples_s)
    assert sum(clock.totals(sum(timing.samples_s)).values()) == pytest.approx(sum(timing.samples_s))


def test_cars_that_are_timed_together_begin_anew_together(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = WorldDreamerVectorEnv(num_envs=2, world_model=model, autoreset_mode="Disabled", max_episode_steps=2)
    batches, resets = [], []
    imagine, reset = model.imagine, env.reset
    monkeypatch.setattr(
        model,
        "imagine",
        lambda state, *a, **k: batches.append(len(state.token_ids_BS)) or imagine(state, *a, **k),
    )
    monkeypatch.setattr(env, "reset", lambda **k: resets.append(len(batches)) or reset(**k))
    driven = env_speed.time_env(env, 3)
    assert len(driven.timing.samples_s) == 3
    rows = sum(batches)
    assert rows == 2 * (env_speed.WARM_UP_STEPS + 3)  # none rested
    assert len(resets) == 1 + (env_speed.WARM_UP_STEPS + 3) // 2


def test_a_long_run_has_no_reset(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    resets = []
    reset = WorldDreamerDriveEnv.reset
    monkeypatch.setattr(
        WorldDreamerDriveEnv, "reset", lambda self, **k: resets.append(self) or reset(self, **k)
    )
    report = speed.measure_long(model, speed.SpeedConfig(num_long_steps=3))
    result = report.as_dict()
    assert len(resets) == len(set(map(id, resets))) == 2  # the old and the young env, once each
    assert {"cost_growth_after_3", "memory_growth_mb_after_3", "peak_memory_mb"} <= set(result)
    assert set(result["long_run_step_ms"]) == {"first 100", "last 100", "old, in turns", "young, in turns"}


def test_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    for message, arguments in {
        "--steps": ["--steps", "0"],
        "--batch": ["--batch", "1", "0"],
        "--rounds": ["--rounds", "0"],
        "--long-steps": ["--long-steps", "-1"],
        "--threads": ["--threads", "0"],
        "--long ": ["--long", "--quick"],
        "--long needs": ["--long", "--long-steps", "0"],
    }.items():
        options = speed.parse([*arguments, "--out", str(tmp_path / "speed.json")])
        with pytest.raises(InputError, match=message):
            speed.config_from(options)
    with pytest.raises(InputError, match="--worlds"):
        reference_speed.measure(first_seed=900_000, num_worlds=0, num_frames=5)


def test_modes_change_the_defaults_and_options_win(tmp_path: Path) -> None:
    def config(*arguments: str) -> speed.SpeedConfig:
        return speed.config_from(speed.parse([*arguments, "--out", str(tmp_path / "speed.json")]))

    assert config().is_batch_compared
    assert config("--quick").num_long_steps == 0
    assert not config("--quick").is_batch_compared
    assert config("--quick", "--steps", "7").num_steps == 7
    assert config("--long").num_long_steps == speed.LONG_STEPS == 5000
    assert config("--compile").is_compiled


def test_bad_weights_end_with_one_sentence(
    model: WorldModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both_ways = small_world_model(is_frame_causal=False)
    path = tmp_path / "full.safetensors"
    save_module(both_ways, path, kind="world-model", config=both_ways.config)
    for weights, message in {"drive-huge": "no weights named", str(path): "frames on both sides"}.items():
        with pytest.raises(SystemExit) as ended:
            speed.run_command(
                lambda weights=weights: speed.main(["--weights", weights, "--out", str(tmp_path / "s.json")])
            )
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize("arguments", [["--compile"], ["--compile", "--cars", "2"]])
def test_compile_asks_for_a_compiler(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no-such-compiler"):
        speed.main([*arguments, "--out", str(tmp_path / "speed.json")])


def test_compiled_passes_are_those_of_a_copy(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: asked.append(options) or function)
    report = speed.Report(title="speed")
    compiled.add_compiled(report, model, WorldDreamerDriveEnv(world_model=model).scene.camera, num_rounds=1)
    result = report.as_dict()
    assert set(result["compile_step_ms"]) == {"eager", "compiled"}
    assert result["compile_speedup"] > 0
    assert asked
    assert not set(FRAME_PASSES) & set(vars(model.stpt))


def test_reference_speed_counts_frames_of_all_worlds() -> None:
    report = reference_speed.measure(first_seed=900_000, num_worlds=2, num_frames=3)
    result = report.as_dict()
    assert result["pictures_per_s"] > result["frames_per_s"] >= result["slowest_world_frames_per_s"] > 0
    assert result["frames_per_s_with_building"] < result["frames_per_s"]


def test_make_bench_names_arguments_that_the_benchmarks_take() -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    recipe = makefile.split("\nbench:")[1].split("\n\n")[0]
    commands = re.findall(r"-m (benchmarks\.\w+)(.*)", recipe)
    assert len(commands) == 4
    for module, arguments in commands:
        options = importlib.import_module(module).parse(arguments.split())
        assert options.out.parent == Path("out")


def test_the_json_notes_the_weights_and_the_command(model: WorldModel, tmp_path: Path) -> None:
    weights, out = tmp_path / "small.safetensors", tmp_path / "speed.json"
    save_module(model, weights, kind="world-model", config=model.config)
    speed.main(
        ["--long", "--long-steps", "2", "--weights", str(weights), "--threads", "1", "--out", str(out)]
    )
    result = json.loads(out.read_text())
    assert result["weights_sha256"] == weights_hash(weights)
    assert "hazard_head_sha256" not in result  # none drives along
    assert result["command"].startswith("python -m benchmarks.speed --long --long-steps 2 ")
    assert set(result["long_run_step_ms"]) == {"first 100", "last 100", "old, in turns", "young, in turns"}
    assert speed.head_name(speed.parse(["--out", str(out)])) == "hazard-tiny"


def test_cars_alone_are_timed_against_one(model: WorldModel) -> None:
    result = speed.measure_cars(model, speed.SpeedConfig(num_rounds=1, cars=[3, 2, 3]), None).as_dict()
    assert min(result["env_steps_per_s_batch1"], result["env_steps_per_s_batch3"]) > 0
    for size in (2, 3):
        assert result[f"vector_speedup_batch{size}"] == pytest.approx(
            1 / result[f"per_env_cost_batch{size}_vs_batch1"]
        )
    assert "stage_ms" not in result
    assert "compile_speedup" not in result


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cars", "1"], "each is at least 2, got \\[1\\]"),
        (["--cars", "8", "--long"], "leave --quick and --long out"),
        (["--device", "cuda"], "--device cuda is for --cars"),
        (["--cars", "8", "--device", "graphics-card"], "device 'graphics-card' cannot be used"),
    ],
)
def test_cars_and_devices_that_cannot_be_timed_are_refused(
    options: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        speed.main([*options, "--out", str(tmp_path / "speed.json")])
