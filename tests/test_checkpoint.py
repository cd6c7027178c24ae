"""Checkpoints: round trips, damage, and weights that do not fit."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_models import small_config, small_video_model, small_world_model

from drivesim import cli
from drivesim.behavior_cloning import CameraDriver, CameraDriverConfig, load_camera_driver
from drivesim.checkpoint import (
    CONFIG_HASH,
    read_checkpoint,
    read_header,
    resolve_weights,
    save_module,
    shipped_weights,
    tensor_hash,
    weights_hash,
)
from drivesim.config_json import config_from_json, config_to_json
from drivesim.errors import InputError, with_article
from drivesim.hazard import HazardHead, load_hazard_head
from drivesim.hazard_inputs import HazardConfig
from drivesim.inverse_dynamics import InverseDynamics, InverseDynamicsConfig, load_inverse_dynamics
from drivesim.tokenizer.vqgan import VQGANConfig
from drivesim.world_model.pretrained import load_tokenizer, load_world_model
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.world_model import WorldModelConfig


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = small_world_model()
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_module(model, path, kind="world-model", config=model.config, facts={"steps": 3}, dtype=torch.float32)
    return model, path


@pytest.fixture(scope="module")
def saved_head(tmp_path_factory):
    config = HazardConfig(
        picture_widths=[8, 8], width=16, num_blocks=1, place_channels=4, fsq_levels=[4, 4, 3]
    )
    path = tmp_path_factory.mktemp("weights") / "head.safetensors"
    save_module(HazardHead(config), path, kind="hazard-head", config=config)
    return path


def of_an_older_version(path, folder):
    """Return a copy whose header has no hash of the configuration."""
    with safe_open(path, framework="pt") as file:
        header = {name: value for name, value in file.metadata().items() if name != CONFIG_HASH}
    save_file(load_file(path), folder / "old.safetensors", metadata=header)
    return folder / "old.safetensors"


def changed(path, folder, field, old, new):
    """Return a copy with another value of a field in its header, as long as the old one."""
    before, after = (f'"{field}\\": {value}'.encode() for value in (old, new))
    data = path.read_bytes()
    assert data.count(before) == 1
    assert len(before) == len(after)
    (folder / "changed.safetensors").write_bytes(data.replace(before, after))
    return folder / "changed.safetensors"


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


@pytest.mark.parametrize(
    ("field", "old", "new"),
    [
        ("num_heads", "2", "5"),
        ("dim", "32", "-2"),
        ("temperature", "0.0", "9.0"),
        ("window", "4", "5"),
        ("rate_hz", "6", "7"),
        ("is_frame_causal", "true", "null"),
    ],
)
def test_one_other_value_in_the_header_is_noticed(saved, tmp_path, field, old, new):
    broken = changed(saved[1], tmp_path, field, old, new)
    with pytest.raises(InputError, match=r"changed\.safetensors is damaged: its kind and configuration"):
        load_world_model(broken)


def test_another_value_in_the_header_of_a_hazard_head_is_noticed(saved_head, tmp_path):
    for field, old, new in (
        ("rate_hz", "6", "7"),
        ("contact_threshold", "0.5", "0.9"),
        ("width", "16", "-6"),
    ):
        with pytest.raises(InputError, match="is damaged"):
            load_hazard_head(changed(saved_head, tmp_path, field, old, new))


def test_another_kind_in_the_header_is_damage(saved, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(saved[1].read_bytes().replace(b"world-model", b"world-modem"))
    with pytest.raises(InputError, match="is damaged"):
        load_world_model(broken)


def test_files_without_a_hash_of_the_configuration_load(saved, saved_head, tmp_path):
    model, path = saved
    assert read_checkpoint(of_an_older_version(path, tmp_path)).facts == {"steps": 3}
    old = load_world_model(tmp_path / "old.safetensors", dtype=torch.float32)
    assert old.config == model.config
    assert load_hazard_head(of_an_older_version(saved_head, tmp_path)).config.width == 16


@pytest.mark.parametrize(
    ("field", "old", "new", "words"),
    [
        ("num_heads", "2", "5", r"stpt\.dim 32 must divide by stpt\.num_heads 5"),
        ("num_heads", "2", "0", "STPTConfig cannot be"),
        ("dim", "32", "-2", "fetch or train"),
        ("window", "4", "1", "window >= 2"),
        ("is_frame_causal", "true", "null", r"STPTConfig\.is_frame_causal must be true or false, got null"),
        ("is_frame_causal", "true", " 1.0", "got 1.0"),
        ("quantizer", '\\"fsq\\"', '\\"fsk\\"', r"VQGANConfig\.quantizer must be one of"),
    ],
)
def test_older_files_say_why_they_cannot_be_built(saved, tmp_path, field, old, new, words):
    broken = changed(of_an_older_version(saved[1], tmp_path), tmp_path, field, old, new)
    with pytest.raises(InputError, match=rf"changed\.safetensors does not load: .*{words}"):
        load_world_model(broken)


def test_a_tokenizer_needs_a_configuration(saved, tmp_path):
    path = tmp_path / "none.safetensors"
    save_module(saved[0], path, kind="world-model", config={"vqgan": None})
    with pytest.raises(InputError, match="VQGANConfig must have fields, got null"):
        load_tokenizer(path)
    save_module(saved[0], path, kind="world-model", config=[])
    with pytest.raises(InputError, match="unreadable header"):
        load_world_model(path)


def test_every_loader_names_the_file_that_it_cannot_build(tmp_path):
    video = small_video_model()
    inverse = InverseDynamicsConfig(turn_widths=[16, 16], motion_widths=[16, 16], appearance_channels=4)
    driver = CameraDriverConfig(width_px=56, height_px=48, channels=4, hidden=8)
    cases = [
        (load_video_model, "video-model", video, video.config, {"t5_dim": None}),
        (load_tokenizer, "tokenizer", video.tokenizer, video.tokenizer.config, {"channels": [8, -8, 16]}),
        (load_inverse_dynamics, "inverse-dynamics", InverseDynamics(inverse), inverse, {"turn_reach": -9}),
        (load_camera_driver, "driving-policy", CameraDriver(driver), driver, {"backbone": "no_such_net"}),
    ]
    for load, kind, module, config, wrong in cases:
        path = tmp_path / f"{kind}.safetensors"
        save_module(module, path, kind=kind, config=config)
        load(path)
        save_module(module, path, kind=kind, config=config_to_json(config) | wrong)
        with pytest.raises(InputError, match=rf"{kind}\.safetensors does not load: .*fetch or train"):
            load(path)


def test_the_command_line_says_in_one_sentence_that_weights_are_damaged(saved, tmp_path, capsys):
    broken = changed(saved[1], tmp_path, "num_heads", "2", "5")
    older = of_an_older_version(saved[1], tmp_path)
    for path in (broken, changed(older, tmp_path, "num_heads", "2", "5")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["rollout", "--steps", "1", "--out", str(tmp_path / "out"), f"episode.weights={path}"])
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert "changed.safetensors" in said
        assert "fetch or train" in said
        assert "Traceback" not in said
        assert said.count("\n") == 1


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


def test_config_json_refuses_values_of_other_types():
    for wrong in (
        {"rate_hz": "6"},
        {"num_context_frames": 4.0},
        {"num_context_frames": True},
        {"rate_hz": None},
    ):
        with pytest.raises(InputError, match=rf"WorldModelConfig\.{next(iter(wrong))} must be .*number, got"):
            config_from_json(WorldModelConfig, wrong)
    for channels in (8, [8, None], None):
        with pytest.raises(InputError, match=r"VQGANConfig\.channels must be"):
            config_from_json(VQGANConfig, {"channels": channels})
    assert config_from_json(WorldModelConfig, {"rate_hz": 6}).rate_hz == 6


def test_shipped_weights_hold_together():
    for name in shipped_weights():
        assert read_checkpoint(resolve_weights(name)).config
