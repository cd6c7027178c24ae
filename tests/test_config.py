"""Configurations compose, are typed, and refuse what they do not know with the nearest names."""

import dataclasses
import json

import pytest
import yaml

from drivesim.config import config_keys, configs_folder, load_config, override, save_run_files
from drivesim.episode import SamplerSettings, sampler_with
from drivesim.errors import InputError
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder

YAML_BUDGET = 10


def test_defaults_come_from_the_dataclasses_and_are_typed_objects():
    config = load_config("rollout")
    assert type(config).__name__ == "RunConfig"
    assert dataclasses.is_dataclass(config.episode.sampler)
    assert config.policy.kwargs == {}
    assert config.most_steps == config.episode.horizon


def test_overrides_are_converted_to_the_fields_types():
    config = load_config("rollout", ["episode.horizon=9", "episode.max_log_deviation_m=3", "seed=7"])
    assert (config.episode.horizon, config.episode.max_log_deviation_m, config.seed) == (9, 3.0, 7)
    assert isinstance(config.episode.max_log_deviation_m, float)


def test_more_steps_than_the_horizon_raise_it():
    config = load_config("rollout", ["num_steps=150"])
    assert (config.episode.horizon, config.most_steps) == (150, 150)
    assert load_config("rollout", ["num_steps=5"]).episode.horizon == load_config("rollout").episode.horizon


def test_saved_values_stand_in_for_defaults(tmp_path):
    save_run_files(load_config("train", ["training.batch_size=3", "training.optimizer=muon"]), tmp_path)
    config = load_config("train", ["training.seed=4"], saved=tmp_path / "config.yaml")
    assert config == load_config(
        "train", ["training.batch_size=3", "training.optimizer=muon", "training.seed=4"]
    )
    assert load_config("train").training.batch_size != 3
    (tmp_path / "config.yaml").write_text("training: {batch_sise: 3}")
    with pytest.raises(InputError, match="not a configuration of this version"):
        load_config("train", saved=tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["random", "RANDOM"])
def test_an_enumeration_is_named_by_name_or_value(text):
    config = load_config("rollout", [f"episode.sampler.order={text}"])
    assert config.episode.sampler.order is UnmaskOrder.RANDOM


def test_the_sampler_is_the_weights_own_but_for_what_is_named():
    assert load_config("rollout").episode.sampler == SamplerSettings()
    settings = load_config("rollout", ["episode.sampler.temperature=0.5"]).episode.sampler
    own = SamplerConfig(num_decode_steps=5, order=UnmaskOrder.RANDOM)
    assert sampler_with(own, settings) == dataclasses.replace(own, temperature=0.5)
    assert load_config("rollout", ["episode.sampler.order=null"]).episode.sampler.order is None
    with pytest.raises(InputError, match="num_decode_steps must be at least 1, got 0"):
        load_config("rollout", ["episode.sampler.num_decode_steps=0"])


@pytest.mark.parametrize("text", ["a b", "it's", "k=v,{x}", "back\\slash", "C:\\dir\\", "", "ümlaut"])
def test_override_quotes_any_text(text):
    assert load_config("rollout", [override("episode.scene", text)]).episode.scene == text


@pytest.mark.parametrize("prefix", ["", "+"])
def test_policy_kwargs_take_new_keys(prefix):
    config = load_config("rollout", [f"{prefix}policy.kwargs.gain=2"])
    assert config.policy.kwargs == {"gain": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("episode.horizn=3", "episode.horizon"),
        ("horizon=3", "episode.horizon"),
        ("episode.reward.progress_=1", "episode.reward.progress"),
        ("zzz=3", "the parts are episode"),
        ("episode.horizon=abc", "episode.horizon"),
        ("episode.horizon=-3", "must be positive, got -3"),
        ("episode.sampler.order=backwards", "confidence, random"),
        ("episode.horizon=1,2", "episode.horizon=1,2"),
        ("~episode.scene", "would remove episode.scene"),
        ("no-equals-sign", "write key=value"),
        ("experiment=unheard_of", "no experiment 'unheard_of'"),
        ("num_steps=0", "num_steps must be at least 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(text, expected):
    with pytest.raises(InputError) as caught:
        load_config("rollout", [text])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_yaml_composes_and_the_budget_holds():
    files = sorted(configs_folder().rglob("*.yaml"))
    assert 2 < len(files) <= YAML_BUDGET
    assert all(len(path.read_text().splitlines()) <= 15 for path in configs_folder().glob("*.yaml"))
    for path in (configs_folder() / "experiment").glob("*.yaml"):
        config = load_config("train", [f"experiment={path.stem}"])
        assert config != load_config("train"), f"{path.name} changes nothing"


def test_train_config_reaches_every_model():
    keys = config_keys("train")
    for part in ("training", "data", "tokenizer", "world_model", "inverse_dynamics"):
        assert any(key.startswith(f"{part}.") for key in keys), part
    config = load_config(
        "train", ["training.num_train_steps=3", "training.optimizer=muon", "data.num_clips=2"]
    )
    assert (config.training.num_train_steps, config.data.num_clips) == (3, 2)
    with pytest.raises(InputError, match=r"training\.batch_size"):
        load_config("train", ["training.batch_sise=2"])


def test_run_files_hold_the_resolved_config_and_versions(tmp_path):
    config = load_config("rollout", ["episode.horizon=9", "policy.kwargs.gain=2"])
    save_run_files(config, tmp_path)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["episode"]["horizon"] == 9
    assert saved["policy"]["kwargs"] == {"gain": 2}
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert {"git", "python", "packages"} == versions.keys()
    assert versions["packages"]["drivesim"] != "not installed"
