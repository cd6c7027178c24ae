"""Recorded clips, cached tokens, and the training tasks made of them."""

import errno
import itertools
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_config, small_world_model

from drivesim.errors import InputError
from drivesim.scene.road_map import UNKNOWN
from drivesim.scene.types import front_camera
from drivesim.training.data import DataConfig, RecordedClips, open_or_record, record_clips
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.row_draws import RowDraws
from drivesim.training.token_cache import TokenCache, build_token_cache, ingredients
from drivesim.training.tokenizer import TokenizerTrainingConfig
from drivesim.training.tokenizer import make_task as make_tokenizer_task
from drivesim.training.world_model import WorldModelTask, WorldModelTrainingConfig
from drivesim.world_model.motion import camera_rays
from drivesim.world_model.places import unpacked_view


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "clips"
    return record_clips(path, num_clips=2, frames_per_clip=6, first_seed=7, num_workers=1)


@pytest.fixture(scope="module")
def model():
    return small_world_model()


@pytest.fixture(scope="module")
def cache(clips, model, tmp_path_factory):
    """One clip whose past is the truth, and one whose past is imagined."""
    path = tmp_path_factory.mktemp("cache") / "tokens"
    return build_token_cache(clips, model, front_camera(), path, num_frames=5, clips_per_batch=1)


def test_recordings_are_driving(clips):
    assert clips.frames.shape == (2, 6, 128, 224, 3)
    assert clips.frames.std() > 10
    step_m = np.linalg.norm(np.diff(clips.xy_m, axis=1), axis=-1)
    np.testing.assert_allclose(step_m * clips.rate_hz, clips.twist[:, 1:, 0], atol=0.1)


def test_recordings_follow_the_seed(clips, tmp_path):
    again = record_clips(tmp_path / "b", num_clips=1, frames_per_clip=6, first_seed=8, num_workers=1)
    np.testing.assert_array_equal(again.frames[0], clips.frames[1])


def test_a_set_of_other_size_is_refused(tmp_path):
    config = DataConfig(
        path=str(tmp_path), num_clips=1, num_validation_clips=1, frames_per_clip=2, num_workers=1
    )
    open_or_record(config)
    open_or_record(config)
    with pytest.raises(InputError, match=r"num_clips.*remove it"):
        open_or_record(DataConfig(path=str(tmp_path), num_clips=2, frames_per_clip=2))


def test_benchmark_roads_are_never_recorded_for_training():
    with pytest.raises(ValueError, match="890000"):
        DataConfig(first_seed=889_900)
    DataConfig(num_validation_clips=10_000)
    with pytest.raises(ValueError, match="at most 10000"):
        DataConfig(num_validation_clips=10_001)


def test_a_full_disk_is_said_before_recording(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("drivesim.files.os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device: .*frames\.npy"):
        record_clips(tmp_path / "a", num_clips=1, frames_per_clip=2, first_seed=7, num_workers=1)
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_is_said(tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *_arguments, **_settings):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_arguments):
            return None

        def map(self, *_arguments, **_settings):
            raise BrokenProcessPool("killed")

    monkeypatch.setattr("drivesim.training.worker_pool.ProcessPoolExecutor", Broken)
    with pytest.raises(InputError, match=r"lower data\.num_workers"):
        record_clips(tmp_path / "a", num_clips=1, frames_per_clip=2, first_seed=7, num_workers=2)


def test_damaged_sets_are_named(tmp_path):
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(InputError, match="holds no recorded clips"):
        RecordedClips.open(tmp_path)


def test_recordings_that_know_no_agents_are_refused(clips, tmp_path):
    for name in ("set.json", "frames.npy", "motion.npz"):
        (tmp_path / name).write_bytes((clips.path / name).read_bytes())
    motion = dict(np.load(tmp_path / "motion.npz"))
    np.savez(tmp_path / "motion.npz", **motion | {"road": motion["road"][:, :, :2]})
    with pytest.raises(InputError, match="know no markings or no agents"):
        RecordedClips.open(tmp_path)


def test_the_check_while_training_is_not_told_where_agents_will_be(clips):
    check = OpenLoopCheck(clips, front_camera(), num_context_frames=2, horizon=3)
    assert clips.road[:, :, 2].max() > UNKNOWN
    assert (check.road_BTEHW[:, :, 2] == UNKNOWN).all()
    assert (check.road_BTEHW[:, :, 0] != UNKNOWN).any()


@torch.no_grad()
def test_cached_tokens_are_the_tokenizers(clips, cache, model):
    frames = torch.from_numpy(np.array(clips.frames[:, 3])).permute(0, 3, 1, 2).float() / 127.5 - 1
    np.testing.assert_array_equal(cache.token_ids[:, 3], model.tokenizer.encode(frames))
    assert cache.token_ids.shape == (2, 5, 112)
    assert (np.abs(cache.expected.astype(np.float32)) <= 1).all()


def test_the_past_of_every_second_clip_is_imagined(clips, cache, model):
    np.testing.assert_array_equal(cache.context_ids[0], cache.token_ids[0])
    np.testing.assert_array_equal(cache.context_ids[1, :2], cache.token_ids[1, :2])
    frames, twist = torch.from_numpy(np.array(clips.frames[1:])), torch.from_numpy(clips.twist[1:])
    road = torch.from_numpy(np.array(clips.road[1:]))
    state = model.begin(frames[:, 0], twist[:, 0], camera_rays(front_camera()))
    for t in range(1, 5):
        outlook = model.outlook(state, twist[:, t], road_BVHW=unpacked_view(road[:, t]))
        state = model.shown(state, frames[:, t], outlook) if t < 2 else model.imagined(state, outlook).state
        np.testing.assert_array_equal(cache.context_ids[1:, t], state.token_ids_BS)


def test_a_cache_of_another_model_is_refused(cache, clips, model):
    other = small_world_model()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    path = Path(cache.token_ids.filename).parent
    with pytest.raises(InputError, match="another model"):
        TokenCache.open(path, made_of=ingredients(clips, other, 5))
    with pytest.raises(InputError, match="another num_frames"):
        TokenCache.open(path, made_of=ingredients(clips, model, 4))


def world_model_task(cache, clips):
    config = WorldModelTrainingConfig(model=small_config(), frames_per_window=4, horizon=1)
    return WorldModelTask(config, cache, clips, small_world_model(), front_camera())


def test_batches_depend_on_seed_and_step_alone(cache, clips):
    task = world_model_task(cache, clips)
    draw = lambda start: task.batches(start_step=start, batch_size=2, seed=3, rank=0, world_size=1)  # noqa: E731
    third = next(itertools.islice(draw(0), 2, None))
    resumed = next(draw(2))
    assert all(torch.equal(third[name], resumed[name]) for name in third)
    assert third["is_masked"].any(-1).all()


def test_shares_of_the_windows_have_no_map_and_no_agents(cache, clips):
    seen = {}
    for name in (shares := ("no_map_share", "no_markings_share", "no_agents_share")):
        task = world_model_task(cache, clips)
        task.config = replace(task.config, **{share: float(share == name) for share in shares})
        batches = task.batches(start_step=0, batch_size=4, seed=3, rank=0, world_size=1)
        road = next(batches)["road"]
        seen[name] = [bool((road[:, :, layer] == UNKNOWN).all()) for layer in range(3)]
    assert seen == {
        "no_map_share": [True, True, False],
        "no_markings_share": [False, True, False],
        "no_agents_share": [False, False, True],
    }


def test_only_the_transformer_is_trained(cache, clips):
    task = world_model_task(cache, clips)
    batch = next(task.batches(start_step=0, batch_size=2, seed=0, rank=0, world_size=1))
    terms = task.losses(task.model, batch, RowDraws(0, []))
    terms["loss"].backward()
    frozen = (task.model.world_model.tokenizer, task.model.world_model.motion_field)
    assert all(p.grad is None for part in frozen for p in part.parameters())
    assert task.model.world_model.stpt.layers[0].mlp[1].weight.grad is not None
    assert 0 <= terms["accuracy"] <= 1


def test_evaluation_reports_the_gain_and_a_picture(cache, clips):
    evaluation = world_model_task(cache, clips).evaluate(world_model_task(cache, clips).model)
    assert np.isfinite(evaluation.metrics["gain_db_at_1"])
    assert evaluation.picture is not None
    assert evaluation.picture.shape[2] == 3


def test_tokenizer_task_measures_psnr(clips):
    config = TokenizerTrainingConfig(vqgan=small_config().vqgan, num_validation_frames=3)
    task = make_tokenizer_task(config, clips, clips)
    batch = next(task.batches(start_step=0, batch_size=2, seed=0, rank=0, world_size=1))
    assert task.losses(task.model, batch, RowDraws(0, []))["loss"].requires_grad
    assert 3 < task.evaluate(task.model.eval()).metrics["psnr_db"] < 40


@pytest.mark.slow
def test_one_clip_can_be_learned_by_heart(cache, clips):
    task = world_model_task(cache, clips)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=5e-3)
    batch = next(task.batches(start_step=0, batch_size=1, seed=0, rank=0, world_size=1))
    accuracies = []
    for _ in range(150):
        terms = task.losses(task.model, batch, RowDraws(0, []))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        accuracies.append(float(terms["accuracy"]))
    assert accuracies[-1] > 0.9
