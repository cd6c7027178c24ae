"""Token sets: made in shards by any number of processes, resumed to the byte, read by training."""

import errno
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_ray import pretended_ray
from recordings import edit_table, make_scene, write_dataset
from safetensors.torch import load_file
from small_models import small_config, small_world_model

from drivesim import cli
from drivesim.checkpoint import save_module
from drivesim.config import load_config
from drivesim.errors import InputError
from drivesim.scene.nuscenes import open_dataset
from drivesim.scene.types import front_camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training import token_making
from drivesim.training.sources import facts_of, open_sources, open_world_model_sources, token_source
from drivesim.training.token_clips import CACHE_ARRAYS, stack
from drivesim.training.token_making import tokenize_scenes
from drivesim.training.token_manifest import MANIFEST, read_manifest, shard_path
from drivesim.training.token_plan import TokenizeConfig, settings_of
from drivesim.training.token_shard import ShardJob, make_shard
from drivesim.training.token_shards import ShardedTokens, check_vision, vision_hash
from drivesim.training.world_model import WorldModelTask, WorldModelTrainingConfig
from drivesim.world_model.pretrained import load_world_model

CONFIG = TokenizeConfig(
    frames_per_clip=4, stride=2, clips_per_shard=3, num_validation_clips=2, num_workers=1, device="cpu"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set of three scenes, of which one is held out."""
    scenes = [make_scene(9, log_name=f"reference-winding-{number}") for number in (1, 2, 3)]
    return write_dataset(tmp_path_factory.mktemp("tokens") / "set", *scenes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = small_world_model()
    save_module(model, path, kind="world-model", config=model.config)
    return path


@pytest.fixture(scope="module")
def made(root, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "tokens"
    tokenize_scenes(open_dataset(root), weights, out, CONFIG)
    return out


@pytest.fixture
def copy(made, tmp_path):
    """A copy of the set to damage."""
    for path in made.rglob("*"):
        target = tmp_path / "copy" / path.relative_to(made)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "copy"


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*")) if path.is_file()}


def train_config(path, weights, *overrides):
    settings = ["data.source=tokens", f"tokens.path={path}", f"world_model.init={weights}"]
    return load_config("train", [*settings, "world_model.frames_per_window=3", *overrides])


# ------------------------------------------------------------------------------------------------- contents


def test_shards_hold_tokens_and_motion_of_the_clips(root, weights, made):
    tokens, model = ShardedTokens.open(made, is_verified=True), load_world_model(weights)
    manifest = tokens.manifest
    assert [len(manifest.planned(number)) for number in range(len(manifest.shards))] == [3, 3]
    assert len(tokens) == len(manifest.clips) == 6
    name, start = manifest.clips[4]
    scene = open_dataset(root).load(name)
    window = tokens.window(4, 1, 3)
    assert set(window) == set(CACHE_ARRAYS)
    frames = torch.stack([torch.from_numpy(scene.frames[start + 1 + t]) for t in range(3)])
    share = (window["token_ids"] == model.tokenizer.encode(normalized(frames)).numpy()).mean()
    assert share > 0.95  # rounding of bfloat16 depends on the batch
    twist = np.stack([scene.speed_mps, scene.yaw_rate_radps], axis=-1)[start + 1 : start + 4]
    np.testing.assert_allclose(window["twist"], twist, rtol=1e-6)
    assert window["token_ids"].dtype == np.int16
    assert window["expected"].dtype == window["motion"].dtype == np.float16


def test_half_of_the_pasts_are_imagined_or_none(root, weights, made, tmp_path):
    tokens = ShardedTokens.open(made)
    is_true = [
        np.array_equal(w["token_ids"], w["context_ids"]) for w in (tokens.window(i, 0, 4) for i in range(6))
    ]
    assert is_true == [True] * 3 + [False] * 3
    plain = tmp_path / "plain"
    tokenize_scenes(open_dataset(root), weights, plain, replace(CONFIG, imagined_share=0.0))
    windows = [ShardedTokens.open(plain).window(i, 0, 4) for i in range(6)]
    assert all(np.array_equal(w["token_ids"], w["context_ids"]) for w in windows)
    np.testing.assert_array_equal(windows[5]["token_ids"][:2], tokens.window(5, 0, 2)["token_ids"])


def test_cars_of_other_calibration_share_a_shard(weights, tmp_path):
    """Each clip is tokenized with the camera that took it, beside whatever clips it lies."""
    cameras = [front_camera(), front_camera(focal_px=140.0)]
    scenes = [replace(make_scene(4, name=f"scene-{i}"), camera=camera) for i, camera in enumerate(cameras)]
    root = write_dataset(tmp_path / "set", *scenes, make_scene(4, log_name="reference-merge-2"))
    dataset = open_dataset(root)
    config = replace(CONFIG, clips_per_shard=2)
    settings = settings_of(dataset, load_world_model(weights, dtype=torch.float32), config)
    names = dataset.scene_names()[:2]

    def shard(folder, *chosen):
        folder.mkdir()
        job = ShardJob(
            number=0,
            folder=folder,
            weights=weights,
            settings=settings,
            windows=[(name, 0) for name in chosen],
            scenes={name: dataset.load(name) for name in chosen},
            unread={},
        )
        assert make_shard(job).num_clips == len(chosen)
        return load_file(shard_path(folder, 0))

    both, second = shard(tmp_path / "both", *names), shard(tmp_path / "second", names[1])
    assert all(torch.equal(both[name][1:], second[name]) for name in CACHE_ARRAYS)
    assert not torch.equal(both["motion"][0, 1:], both["motion"][1, 1:])


def test_bad_pictures_and_scenes_are_left_out_and_named(root, weights, tmp_path):
    files = {path: path.read_bytes() for path in root.rglob("*.jpg")}
    dataset = open_dataset(root)
    train = read_names(root, weights, tmp_path)
    torn = dataset.load(train[0]).frames.paths[3]
    gone = dataset.load(train[1]).frames.paths
    try:
        torn.write_bytes(torn.read_bytes()[:90])
        for path in gone:
            path.unlink()
        manifest = tokenize_scenes(dataset, weights, tmp_path / "out", CONFIG)
    finally:
        for path, data in files.items():
            path.write_bytes(data)
    assert [row for row, _ in manifest.shards[0].skipped] == [0, 1]
    assert torn.name in manifest.shards[0].skipped[0][1]
    assert (manifest.shards[1].num_clips, len(manifest.shards[1].skipped)) == (0, 3)
    assert all(reason for _, reason in manifest.shards[1].skipped)
    tokens = ShardedTokens.open(tmp_path / "out")
    assert len(tokens) == 1
    assert tokens.window(0, 0, 4)["token_ids"].shape == (4, 112)


def read_names(root, weights, tmp_path):
    """Return the training scenes of the split."""
    return token_making.split(open_dataset(root).scene_names(), CONFIG.validation_share)[0]


# ------------------------------------------------------------------------------------------- runs that stop

KILLED = """
import os, signal, sys
from drivesim.scene.nuscenes import open_dataset
from drivesim.training import token_making
from drivesim.training.token_making import tokenize_scenes
from drivesim.training.token_plan import TokenizeConfig
from pathlib import Path

def write_and_die(folder, manifest, real=token_making.write_manifest):
    real(folder, manifest)
    if len(manifest.missing) < len(manifest.shards):
        (folder / ".shard-00001-0123abcd.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

token_making.write_manifest = write_and_die
config = TokenizeConfig(
    frames_per_clip=4, stride=2, clips_per_shard=3, num_validation_clips=2, num_workers=int(sys.argv[4]), device="cpu"
)
tokenize_scenes(open_dataset(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), config)
"""


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bytes(root, weights, made, tmp_path, workers):
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(root), str(weights), str(out), workers]
    result = subprocess.run(command, check=False)
    assert result.returncode == -9
    assert len(read_manifest(out).missing) == 1
    with pytest.raises(InputError, match="not finished: 1 of 2 shards are missing"):
        ShardedTokens.open(out)
    tokenize_scenes(open_dataset(root), weights, out, CONFIG)
    assert files_of(out) == files_of(made)
    assert not list(out.glob(".shard-*"))


def test_a_finished_run_makes_nothing_and_a_damaged_shard_is_made_again(
    root, weights, made, copy, monkeypatch
):
    tokenize_scenes(open_dataset(root), weights, copy, CONFIG)
    monkeypatch.setattr(token_making, "fan_out", lambda *_arguments, **_settings: None)
    tokenize_scenes(open_dataset(root), weights, copy, CONFIG)
    monkeypatch.undo()
    shard = shard_path(copy, 0)
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(
        InputError, match=r"damaged or missing in .*: shard-00000.safetensors; .*drivesim tokenize"
    ):
        ShardedTokens.open(copy)
    shard_path(copy, 1).unlink()
    with pytest.raises(InputError, match=r"shard-00000\.safetensors, shard-00001\.safetensors"):
        ShardedTokens.open(copy)
    tokenize_scenes(open_dataset(root), weights, copy, CONFIG)
    assert files_of(copy) == files_of(made)


def test_a_flipped_bit_is_found_by_its_checksum(made, copy, capsys):
    path = shard_path(copy, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ShardedTokens.open(copy)
    with pytest.raises(InputError, match=r"shard-00001\.safetensors; remove them"):
        ShardedTokens.open(copy, is_verified=True)
    with pytest.raises(SystemExit) as caught:
        cli.main(["tokenize", "--out", str(copy), "--verify"])
    assert caught.value.code == 2
    assert "shard-00001.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        cli.main(["tokenize", "--out", str(made), "--verify"])
    assert not caught.value.code
    assert "2 shards are whole" in capsys.readouterr().out


def test_a_shard_whose_header_lies_is_refused(copy):
    one, other = (shard_path(copy, number) for number in (0, 1))
    size = one.stat().st_size
    tokens = ShardedTokens.open(copy)
    one.write_bytes(b"\xff" * size)
    with pytest.raises(InputError, match="cannot be read"):
        tokens.window(0, 0, 2)
    assert tokens.window(3, 0, 2)["token_ids"].shape == (2, 112)
    tokens.manifest.settings.frames_per_clip = 9
    with pytest.raises(InputError, match="has not the clips"):
        ShardedTokens(copy, tokens.manifest).window(3, 0, 2)
    assert other.is_file()


@pytest.mark.parametrize(
    ("changes", "names", "word"),
    [({"stride": 1}, (), "stride"), ({"seed": 5}, (), "seed"), ({}, ("scene-2001", "scene-2002"), "scenes")],
)
def test_other_settings_do_not_go_on(root, weights, made, changes, names, word):
    before = files_of(made)
    with pytest.raises(InputError, match=f"made with other {word}; use the same"):
        tokenize_scenes(open_dataset(root), weights, made, replace(CONFIG, **changes), names=names)
    assert files_of(made) == before


def test_another_data_set_does_not_go_on(root, weights, made, dataroot):
    edit_table(dataroot, "scene", lambda rows: [{**row, "description": "changed"} for row in rows])
    with pytest.raises(InputError, match="made with other tables"):
        tokenize_scenes(open_dataset(dataroot), weights, made, CONFIG)


def test_a_full_disk_is_said_and_what_is_there_stays(root, weights, made, tmp_path, monkeypatch):
    real = Path.write_bytes

    def full(self, data):
        if "shard-00001" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*shard-00001\.safetensors"):
        tokenize_scenes(open_dataset(root), weights, tmp_path / "out", CONFIG)
    monkeypatch.undo()
    assert read_manifest(tmp_path / "out").missing == [1]
    tokenize_scenes(open_dataset(root), weights, tmp_path / "out", CONFIG)
    assert files_of(tmp_path / "out") == files_of(made)


# -------------------------------------------------------------------------------------------- the command line


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(["tokenize", *map(str, arguments)])
    return caught.value.code or 0, capsys.readouterr()


def test_bad_input_is_one_sentence(root, weights, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other.safetensors"
    save_module(small_world_model().tokenizer, other, kind="tokenizer", config=small_config().vqgan)
    slow = tmp_path / "slow.safetensors"
    model = small_world_model()
    save_module(model, slow, kind="world-model", config=replace(model.config, rate_hz=12.0))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("keep me")
    good = ["--dataroot", root, "--weights", weights]
    cases = [
        (["--out", tmp_path / "a"], "needs --dataroot"),
        (["--out", tmp_path / "a", "--dataroot", tmp_path / "nowhere"], "nowhere does not exist"),
        (["--out", tmp_path / "a", "--dataroot", root, "--weights", other], "holds a tokenizer"),
        (["--out", tmp_path / "a", "--dataroot", root, "--weights", slow], "224x128 px and 12 Hz"),
        (["--out", tmp_path / "a", *good, "--frames-per-clip", 99], "none of 2 training scenes"),
        (["--out", tmp_path / "a", *good, "--frames-per-clip", 1], "frames_per_clip >= 2"),
        (["--out", tmp_path / "a", *good, "--imagined-share", 2], "the imagined share lies in"),
        (["--out", tmp_path / "a", *good, "--device", "tpu"], "auto, cpu or cuda"),
        (
            ["--out", tmp_path / "a", *good, "--scenes", "scene-2001, scene-9"],
            "has no scene 'scene-9'; did you mean",
        ),
        (["--out", tmp_path / "a", *good, "--scenes", "scene-2001"], "two scenes"),
        (["--out", tmp_path / "full", *good, "--frames-per-clip", 4], "holds other files (letter.txt)"),
        (["--out", other, *good, "--frames-per-clip", 4], "is a file; name a folder"),
        (["--out", tmp_path / "a", "--verify"], "holds no tokens"),
    ]
    for arguments, words in cases:
        code, output = run(capsys, *arguments)
        assert code == 2, arguments
        assert words in output.err
        assert output.err.count("\n") == 1
    assert not (tmp_path / "a").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]

    def refused(self, *_arguments, **_settings):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    code, output = run(capsys, "--out", tmp_path / "sealed" / "a", *good, "--frames-per-clip", 4)
    assert (code, "Permission denied" in output.err) == (2, True)


def test_ray_shares_the_shards(root, weights, made, tmp_path, capsys, monkeypatch):
    ray = pretended_ray()
    monkeypatch.setitem(sys.modules, "ray", ray)
    flags = ["--frames-per-clip", 4, "--stride", 2, "--clips-per-shard", 3, "--device", "cpu"]
    arguments = ["--out", tmp_path / "out", "--dataroot", root, "--weights", weights, *flags]
    code, output = run(capsys, *arguments, "--ray", "auto")
    assert code == 0, output.err
    assert "6 clips of 2 scenes in 2 shards" in output.out
    assert ray.options == {"max_retries": 0}
    assert shard_path(tmp_path / "out", 1).read_bytes() == shard_path(made, 1).read_bytes()
    monkeypatch.setattr(token_making, "shard_path", lambda folder, number: folder / "elsewhere")
    code, output = run(capsys, *arguments[:1], tmp_path / "far", *arguments[2:], "--ray", "auto")
    assert (code, "that all machines share" in output.err) == (2, True)


# --------------------------------------------------------------------------------------------------- training


def test_training_reads_the_set(made, weights):
    config = train_config(made, weights, "tokens.verify=true", "world_model.horizon=1")
    sources = open_world_model_sources(config)
    model = load_world_model(weights, dtype=torch.float32)
    tokens = token_source(sources, model, config)
    assert sources.frames_per_clip == 4
    assert sources.validation.frames.shape[1:] == (4, 128, 224, 3)
    task = WorldModelTask(config.world_model, tokens, sources.validation, model, sources.camera)
    draw = lambda step, rank: next(  # noqa: E731
        task.batches(start_step=step, batch_size=4, seed=3, rank=rank, world_size=2)
    )
    batch = draw(5, 1)
    again = draw(5, 1)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["twist"], draw(5, 0)["twist"])
    assert batch["token_ids"].dtype == torch.int32
    assert batch["token_ids"].shape == (4, 3, 112)
    assert task.model(batch)["loss"].isfinite()
    facts = facts_of(config)
    assert (facts["source"], facts["num_clips"], len(facts["scenes"])) == ("tokens", 6, 2)
    assert not any(str(made) in str(value) for value in facts.values())


def test_windows_are_views_of_the_file_and_maps_are_not_pickled(made):
    tokens = ShardedTokens.open(made)
    whole = tokens.window(2, 0, 4)
    assert not whole["token_ids"].flags.owndata
    again = pickle.loads(pickle.dumps(tokens))
    assert not again._mapped
    for name, array in again.window(2, 1, 2).items():
        np.testing.assert_array_equal(array, whole[name][1:3])
    batch = stack([tokens.window(0, 0, 2), tokens.window(5, 2, 2)])
    np.testing.assert_array_equal(batch["twist"][1], tokens.window(5, 2, 2)["twist"])


def test_weights_must_see_and_expect_the_same(made, weights, tmp_path):
    tokens, model = ShardedTokens.open(made), load_world_model(weights, dtype=torch.float32)
    check_vision(tokens, model, init="small")
    with torch.no_grad():
        next(model.stpt.parameters()).add_(1)
    save_module(model, tmp_path / "again.safetensors", kind="world-model", config=model.config)
    again = load_world_model(tmp_path / "again.safetensors", dtype=torch.float32)
    check_vision(tokens, again, init="again")  # the transformer may be any
    with torch.no_grad():
        next(again.motion_field.parameters()).add_(1)
    assert vision_hash(again) != vision_hash(model)
    with pytest.raises(InputError, match=r"another tokenizer or motion field .* than that of again"):
        check_vision(tokens, again, init="again")


def test_runs_that_need_pictures_and_paths_that_are_missing_are_refused(made, weights, tmp_path):
    with pytest.raises(InputError, match="has no pictures"):
        open_sources(train_config(made, weights))
    with pytest.raises(InputError, match=r"needs tokens\.path"):
        open_world_model_sources(load_config("train", ["data.source=tokens"]))
    with pytest.raises(InputError, match="holds no tokens"):
        open_world_model_sources(train_config(tmp_path, weights))
    assert (made / MANIFEST).is_file()
    assert WorldModelTrainingConfig().frames_per_window > 4


def test_of_two_scenes_the_shorter_is_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = {"scene-a": 180, "scene-b": 60}
    for ordered in (lengths, dict(reversed(lengths.items()))):
        train, validation = token_making._split(ordered, TokenizeConfig())
        assert (train, validation) == (["scene-a"], ["scene-b"])
        assert "10 of 40 s (scene-b)" in capsys.readouterr().out
