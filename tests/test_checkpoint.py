"""Checkpoints: round trips, damage, and weights that do not fit."""

import pytest
import torch
from safetensors.torch import save_file
from small_models import small_config, small_world_model

from drivesim.checkpoint import (
    config_from_json,
    config_to_json,
    read_checkpoint,
    read_header,
    resolve_weights,
    save_module,
    tensor_hash,
    weights_hash,
)
from drivesim.errors import InputError, with_article
from drivesim.tokenizer.vqgan import VQGANConfig
from drivesim.world_model.pretrained import load_tokenizer, load_world_model
from drivesim.world_model.world_model import WorldModelConfig


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = small_world_model()
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_module(model, path, kind="world-model", config=model.config, facts={"steps": 3}, dtype=torch.float32)
    return model, path


def test_round_trip_keeps_weights_config_and_facts(saved):
    model, path = saved
    again = load_world_model(path, dtype=torch.float32)
    assert config_to_json(again.config) == config_to_json(model.config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert read_checkpoint(path).facts == {"steps": 3}


def test_the_tokenizer_comes_out_of_a_world_model(saved):
    model, path = saved
    frames = torch.rand(1, 3, 128, 224) * 2 - 1
    assert torch.equal(load_tokenizer(path).encode(frames), model.tokenizer.encode(frames))


def test_one_flipped_bit_is_noticed(saved, tmp_path):
    data = bytearray(saved[1].read_bytes())
    data[-5] ^= 1
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(broken)


def test_truncated_and_foreign_files_are_named(saved, tmp_path):
    short = tmp_path / "short.safetensors"
    short.write_bytes(saved[1].read_bytes()[:1000])
    with pytest.raises(InputError, match=r"short\.safetensors is not a readable"):
        read_checkpoint(short)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, foreign)
    with pytest.raises(InputError, match="was not written by drivesim"):
        read_checkpoint(foreign)


def test_weights_of_another_shape_or_kind_do_not_load(saved, tmp_path):
    path = tmp_path / "other.safetensors"
    save_module(saved[0], path, kind="world-model", config=small_config(dim=64))
    with pytest.raises(InputError, match="another shape"):
        load_world_model(path)
    save_module(saved[0].tokenizer, path, kind="tokenizer", config=saved[0].config.vqgan)
    with pytest.raises(InputError, match="holds a tokenizer, but a world-model is needed"):
        load_world_model(path)


def test_the_hash_of_weights_is_read_from_their_header(saved, tmp_path):
    assert weights_hash(saved[1]) == read_header(saved[1])["sha256"] == tensor_hash(saved[0].state_dict())
    (tmp_path / "text.safetensors").write_text("none")
    assert read_header(tmp_path / "text.safetensors") == {}
    assert weights_hash(tmp_path / "text.safetensors") == ""


@pytest.mark.parametrize(
    ("noun", "said"),
    [("inverse-dynamics", "an inverse-dynamics"), ("hazard-head", "a hazard-head"), ("", "a ")],
)
def test_kinds_of_weights_have_an_article(noun, said):
    assert with_article(noun) == said


def test_unknown_weights_list_the_shipped_ones():
    with pytest.raises(InputError, match=r"no weights named 'drive-tini'.*drive-tiny"):
        resolve_weights("drive-tini")


def test_config_json_is_strict():
    config = WorldModelConfig(vqgan=VQGANConfig(channels=[8, 8], num_res_blocks=[1, 1]))
    assert config_from_json(WorldModelConfig, config_to_json(config)) == config
    with pytest.raises(InputError, match="no field 'wings'"):
        config_from_json(WorldModelConfig, {"wings": 2})
