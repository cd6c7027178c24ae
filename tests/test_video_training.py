"""Captioned sets, their tokens, and the training of a video model on clips and images together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_config, small_video_config, small_video_model

from drivesim import cli
from drivesim.checkpoint import read_checkpoint, save_module
from drivesim.errors import InputError
from drivesim.general_world.captions import MOTION_WORDS
from drivesim.scene.captioned_source import CaptionedSourceConfig
from drivesim.tokenizer.vqgan import VQGANConfig, normalized
from drivesim.training.captioned_makers import CLIPS_PER_DRIVE, GeneralDataConfig, open_or_make
from drivesim.training.captioned_media import open_or_read
from drivesim.training.captioned_set import CaptionedItem, CaptionedSet, write_set
from drivesim.training.captioned_tokens import CaptionedTokens, open_or_tokenize
from drivesim.training.initial_weights import initialize_from
from drivesim.training.loop import TrainingConfig, fit
from drivesim.training.row_draws import RowDraws
from drivesim.training.video_model import (
    VideoModelModule,
    VideoModelTask,
    VideoTrainingConfig,
    code_weights,
    is_image_step,
)
from drivesim.training.word_weights import WeightedRows, weights_of
from drivesim.video import write_image, write_video
from drivesim.world_model.pretrained_video import (
    load_video_model,
    save_video_model,
    trainable_video_model,
)
from drivesim.world_model.video_model import VideoModelConfig

FRAMES = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return GeneralDataConfig(
        path=str(tmp_path_factory.mktemp("general")),
        num_clips=3,
        num_images=4,
        num_drives=1,
        num_validation_clips=2,
        num_validation_images=1,
        frames_per_clip=FRAMES,
        num_workers=1,
    )


@pytest.fixture(scope="module")
def sets(config):
    return open_or_make(config)


def full_size_model(**changes):
    """Return a small model for frames of the size in which drives are recorded."""
    return small_video_model(vqgan=small_config().vqgan, **changes)


@pytest.fixture
def model():
    return full_size_model()


@pytest.fixture
def tokens(sets, model):
    return [open_or_tokenize(content, model.tokenizer) for content in sets]


def test_a_set_holds_clips_images_and_drives_with_captions(sets):
    train, validation = sets
    assert train.clips.shape == (3 + CLIPS_PER_DRIVE, FRAMES, 128, 224, 3)
    assert train.images.shape == (4, 128, 224, 3)
    assert len(validation) == 2
    captions = (train.clip_captions, train.frame_captions, train.image_captions)
    assert [len(part) for part in captions] == [5, 5, 4]
    assert all(wording for part in captions for wordings in part for wording in wordings)
    assert np.isfinite(train.twist[:CLIPS_PER_DRIVE]).all()
    assert np.isnan(train.twist[CLIPS_PER_DRIVE:]).all()
    assert len({clip.tobytes() for clip in train.clips}) == 5


def test_a_set_is_opened_again_and_another_one_is_refused(config, sets):
    again, _ = open_or_make(config)
    np.testing.assert_array_equal(again.clips, sets[0].clips)
    other = GeneralDataConfig(**{name: getattr(config, name) for name in config.__slots__} | {"num_clips": 2})
    with pytest.raises(InputError, match=r"num_clips.*general\.path"):
        open_or_make(other)


def test_seeds_kept_for_validation_are_refused():
    with pytest.raises(ValueError, match="890000"):
        GeneralDataConfig(first_seed=889_999)


@pytest.mark.parametrize(
    "counts",
    [
        {"first_seed": 889_990, "num_clips": 1, "num_images": 1, "num_drives": 50},
        {"num_validation_clips": 9_000, "num_validation_images": 9_000},
    ],
)
def test_no_count_reaches_seeds_that_are_kept(counts):
    with pytest.raises(ValueError, match="general"):
        GeneralDataConfig(**counts)


def test_tokens_of_a_set_made_anew_are_not_taken_for_its_own(sets, model, tmp_path):
    def item():
        return CaptionedItem(frames=np.array(sets[0].images[:1]), captions=["a"], frame_captions=["a"])

    folder, sizes = tmp_path / "set", {"num_clips": 0, "num_images": 1, "clip_shape": (FRAMES, 128, 224)}
    first = write_set(folder, iter([item()]), facts={}, **sizes)
    open_or_tokenize(first, model.tokenizer)
    for path in folder.iterdir():
        path.unlink()
    again = write_set(folder, iter([item()]), facts={}, **sizes)
    with pytest.raises(InputError, match="something else"):
        open_or_tokenize(again, model.tokenizer)


def test_rare_codes_weigh_more_and_drawing_takes_it_off(tokens, model):
    weight_K = code_weights(tokens[0], 48, 0.5)
    counts = np.bincount(tokens[0].images.ravel(), minlength=48) + np.bincount(
        tokens[0].clips[::7].ravel(), minlength=48
    )
    assert weight_K[counts.argmin()] > 1 > weight_K[counts.argmax()]
    assert float((weight_K * torch.from_numpy(counts + 1.0)).sum() / (counts + 1).sum()) == pytest.approx(1)
    assert torch.equal(code_weights(tokens[0], 48, 0.0), torch.ones(48))
    VideoModelTask(VideoTrainingConfig(code_balance=0.5), *tokens, model)
    torch.testing.assert_close(model.code_bias_K, weight_K.log())
    ids = torch.zeros(1, FRAMES, 112, dtype=torch.int64)
    model.code_bias_K[:] = 1e4
    model.code_bias_K[7] = 0.0
    drawn = model.complete(ids, torch.ones_like(ids, dtype=torch.bool), [""])
    assert (drawn.token_ids_BS == 7).all()


def test_items_weigh_what_the_words_of_their_captions_do():
    captions = [["a red STAR", "a thing"], ["a night full of stars"], ["a plus sign", "a cross"], []]
    weight_N = weights_of(captions, {"star": 3.0, "plus sign": 0.5, "cross": 2.0})
    assert weight_N.tolist() == [3.0, 1.0, 2.0, 1.0]
    assert weights_of(captions, {"hippopotamus": 3.0}).tolist() == [1.0] * 4
    drawn_B = WeightedRows(weight_N).draw(RowDraws(0, range(4000)))
    np.testing.assert_allclose(np.bincount(drawn_B, minlength=4) / 4000, weight_N / weight_N.sum(), atol=0.03)


@pytest.mark.parametrize(("word", "image_share"), [("cross", 0.0), ("star", 0.99)])
def test_what_has_a_weighty_word_is_trained_on_more_often(tokens, model, word, image_share):
    train = tokens[0]
    content = replace(
        train.content,
        image_captions=[["a star"], *([["a box"]] * 3)],
        clip_captions=[["a cross"], *([["a box"]] * 4)],
    )
    config = VideoTrainingConfig(image_share=image_share, word_weights={word: 1e6})
    task = VideoModelTask(config, replace(train, content=content), tokens[1], model)
    batch = next(task.batches(start_step=1, batch_size=2, seed=0, rank=0, world_size=1))
    ids = batch["token_ids"].numpy()
    assert (ids == (train.images[:1] if image_share else train.clips[:1])).all()


@pytest.mark.parametrize("weights", [{"star": 0.0}, {"star": float("nan")}, {"star": 1e308}, {" ": 2.0}])
def test_words_without_a_weight_are_refused(weights):
    with pytest.raises(ValueError, match="word_weights"):
        VideoTrainingConfig(word_weights=weights)


def test_half_of_the_captions_of_made_images_say_how_they_go_on(sets):
    phrases = [phrase for words in MOTION_WORDS.values() for phrase in words]

    def is_told(caption):
        return any(phrase in caption for phrase in phrases)

    told = np.array([[is_told(text) for text in texts] for texts in sets[0].image_captions])
    assert not told[:, ::2].any()
    assert (told[:, 1::2].mean(axis=0) >= 0.5).all()


def test_captions_of_the_wild_are_cut(tokens, model):
    wild = [["word " * 500 + "\ud800"]] * len(tokens[0].clips)
    train = replace(tokens[0], content=replace(tokens[0].content, clip_captions=wild))
    task = VideoModelTask(VideoTrainingConfig(prompt_drop=0.0, image_share=0.0), train, tokens[1], model)
    batch = next(task.batches(start_step=0, batch_size=1, seed=0, rank=0, world_size=1))
    assert batch["byte_ids"].shape[1] == model.config.bytes_encoder.max_pieces
    assert torch.isfinite(task.losses(task.model, batch, RowDraws(0, []))["loss"])


def test_half_a_set_is_never_left(tmp_path):
    def items():
        yield CaptionedItem(frames=np.zeros((1, 16, 16, 3), np.uint8), captions=["a"], frame_captions=["a"])
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_set(tmp_path / "set", items(), num_clips=0, num_images=2, clip_shape=(2, 16, 16), facts={})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="made anew"):
        CaptionedSet.open(tmp_path / "set")


def test_tokens_are_those_of_the_frames_and_are_kept(sets, model, tokens):
    expected = model.tokenizer.encode(normalized(torch.from_numpy(np.array(sets[0].clips[1]))))
    assert (tokens[0].clips[1] == expected.numpy()).mean() > 0.95  # bfloat16 moves a few over a border
    assert tokens[0].images.shape == (4, 112)
    folder = next(sets[0].path.parent.glob("tokens-train-*"))
    (folder / "tokens.json").write_text("{}")
    with pytest.raises(InputError, match="remove it"):
        open_or_tokenize(sets[0], model.tokenizer)
    (folder / "clips.npy").unlink()
    with pytest.raises(InputError, match="no tokens"):
        open_or_tokenize(sets[0], model.tokenizer)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    open_or_tokenize(sets[0], model.tokenizer)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 25), (0.5, 50), (0.9, 90)])
def test_images_take_their_share_of_the_steps(share, expected):
    assert sum(is_image_step(step, share) for step in range(100)) == expected


def test_batches_hold_clips_or_as_many_frames_of_images(tokens, model):
    task = VideoModelTask(VideoTrainingConfig(image_share=0.5, prompt_drop=0.0), *tokens, model)
    batches = task.batches(start_step=0, batch_size=2, seed=0, rank=0, world_size=1)
    shapes = [tuple(next(batches)["token_ids"].shape) for _ in range(4)]
    assert shapes == [(2, FRAMES, 112), (2 * FRAMES, 1, 112)] * 2


def test_of_images_is_hidden_what_lies_about_a_thing(tokens, model):
    settings = {"image_share": 0.9, "prompt_drop": 0.0}
    masks = []
    for share in (0.0, 1.0):
        task = VideoModelTask(VideoTrainingConfig(thing_share=share, **settings), *tokens, model)
        batches = task.batches(start_step=1, batch_size=8, seed=0, rank=0, world_size=1)
        masks.append(torch.cat([next(batches)["is_masked"][:, 0] for _ in range(4)]).float().mean(0))
    # Scattered tokens lie everywhere, things of a few pictures in their middle.
    assert masks[0].min() > 0.2
    assert masks[1].unflatten(0, (8, 14))[:, [0, -1]].mean() < 0.5 * masks[1].max()
    with pytest.raises(ValueError, match="thing_share"):
        VideoTrainingConfig(thing_share=1.5)


def test_sets_without_places_open_and_cannot_hide_things(config, sets, tokens, model, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(sets[0].path, folder)
    for name in ("clip_boxes.npy", "image_boxes.npy"):
        (folder / name).unlink()
    older = CaptionedSet.open(folder)
    assert older.clip_boxes.shape == sets[0].clip_boxes.shape
    assert np.isnan(older.image_boxes).all()
    train = replace(tokens[0], content=older)
    VideoModelTask(VideoTrainingConfig(), train, tokens[1], model)
    with pytest.raises(InputError, match=r"thing_share is 0\.5.*thing_share=0"):
        VideoModelTask(VideoTrainingConfig(thing_share=0.5), train, tokens[1], model)


def test_where_things_are_is_kept_with_a_set(sets):
    train, validation = sets
    assert train.clip_boxes.shape == (5, FRAMES, 2, 4)
    assert np.isnan(train.clip_boxes[:CLIPS_PER_DRIVE]).all()
    boxes = np.concatenate([train.image_boxes[:, 0], validation.image_boxes[:, 0]])
    known = boxes[np.isfinite(boxes).all(-1)]
    assert len(known) >= 3
    assert (known[:, 2:] > known[:, :2]).all()


def test_a_batch_depends_on_its_step_alone(tokens, model):
    task = VideoModelTask(VideoTrainingConfig(), *tokens, model)
    arguments = {"batch_size": 2, "seed": 3, "rank": 0, "world_size": 1}
    first = task.batches(start_step=0, **arguments)
    for _ in range(2):
        next(first)
    third, again = next(first), next(task.batches(start_step=2, **arguments))
    assert third.keys() == again.keys()
    assert all(torch.equal(third[name], again[name]) for name in third)


def test_dropped_prompts_are_empty(tokens, model):
    task = VideoModelTask(VideoTrainingConfig(prompt_drop=1.0, image_share=0.0), *tokens, model)
    batch = next(task.batches(start_step=0, batch_size=2, seed=0, rank=0, world_size=1))
    assert not batch["byte_ids"].any()


def test_actions_reach_a_model_that_reads_them(sets):
    model = full_size_model(num_action_tokens=1)
    tokens = [open_or_tokenize(content, model.tokenizer) for content in sets]
    task = VideoModelTask(VideoTrainingConfig(prompt_drop=0.0, image_share=0.0), *tokens, model)
    batch = next(task.batches(start_step=0, batch_size=16, seed=0, rank=0, world_size=1))
    is_drive = batch["twist"].isfinite().all(-1).all(-1)
    assert 0 < int(is_drive.sum()) < 16
    terms = task.losses(task.model, batch, RowDraws(0, []))
    assert torch.isfinite(terms["loss"])
    terms["loss"].backward()
    assert model.action_encoder.mlp[0].weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())


def test_training_lowers_the_loss_and_resumes(tokens, model, tmp_path):
    settings = TrainingConfig(
        num_train_steps=12,
        batch_size=2,
        learning_rate=3e-3,
        warmup_steps=2,
        accelerator="cpu",
        precision="32-true",
        ema_decay=0.5,
        log_every=1,
        evaluate_every=0,
    )
    task = VideoModelTask(VideoTrainingConfig(prompt_drop=0.0), *tokens, model)
    before = task.evaluate(task.model.eval()).metrics["loss"]
    result = fit(task, settings, tmp_path / "run")
    assert result.metrics["loss"] < 0.8 * before
    assert "prompt_gain_nats" in result.metrics
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("loss" in line for line in lines)


def test_an_untrained_prompt_gains_nothing(tokens, model):
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.zeros_(parameter)
    task = VideoModelTask(VideoTrainingConfig(), *tokens, model)
    evaluation = task.evaluate(task.model.eval())
    assert evaluation.metrics["prompt_gain_nats"] == pytest.approx(0.0, abs=1e-5)
    assert evaluation.picture.ndim == 3


def run(*arguments: object) -> int:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)


def test_the_command_trains_from_a_tokenizer_and_its_weights_generate(config, sets, tmp_path):
    tokenizer = full_size_model().tokenizer
    path = tmp_path / "tokenizer.safetensors"
    save_module(tokenizer, path, kind="tokenizer", config=tokenizer.config)
    sizes = [f"general.{name}={getattr(config, name)}" for name in config.__slots__ if name != "path"]
    stpt = "video_model.model.stpt"
    arguments = [
        *("train", "video-model", f"video_model.init={path}", f"general.path={config.path}", *sizes),
        *(f"{stpt}.dim=32", f"{stpt}.num_layers=1", f"{stpt}.num_heads=2", f"{stpt}.conv_dim=8"),
        *("video_model.model.bytes_encoder.dim=32", "training.num_train_steps=2", "training.batch_size=1"),
        *("training.accelerator=cpu", f"video_model.model.num_frames={FRAMES}"),
        "video_model.frames_per_window=3",
    ]
    assert run(*arguments, "--out", tmp_path / "run") == 0
    weights = tmp_path / "run" / "video-model.safetensors"
    facts = read_checkpoint(weights, kind="video-model").facts
    assert facts["data"]["num_clips"] == 3
    assert str(tmp_path) not in json.dumps(facts["data"])
    model = load_video_model(weights)
    ids = torch.zeros(1, FRAMES, 112, dtype=torch.int64)
    sampled = model.complete(ids, torch.ones_like(ids, dtype=torch.bool), ["a red ball"])
    assert sampled.token_ids_BS.shape == (1, FRAMES * 112)
    assert trainable_video_model(weights, VideoModelConfig()).config == model.config


def test_clips_of_another_length_or_rate_are_refused(tmp_path, capsys):
    run("train", "video-model", "general.frames_per_clip=8", "--out", tmp_path / "run")
    assert "clips of 8 frames" in capsys.readouterr().err
    run("train", "video-model", "video_model.frames_per_window=20", "--out", tmp_path / "run")
    assert "windows of 20 frames do not fit into clips of 16" in capsys.readouterr().err
    assert run("train", "video-model", "video_model.model.rate_hz=12", "--out", tmp_path / "run") == 2
    assert "8 frames per second" in capsys.readouterr().err


def test_a_run_without_a_beginning_is_refused(config, sets):
    with pytest.raises(InputError, match=r"video_model\.init"):
        trainable_video_model("", VideoModelConfig())


def test_sizes_that_the_weights_do_not_have_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_module(model, path, kind="video-model", config=model.config)
    asked = VideoModelConfig(num_frames=24)
    with pytest.raises(InputError, match="other sizes"):
        trainable_video_model(path, asked)


def test_how_weights_draw_is_kept_whatever_is_asked_for(tmp_path):
    drawing = {"next_revisions_ratio": 0.5, "next_rounds_ratio": 0.25, "next_temperature_ratio": 2.0}
    model = full_size_model(stpt=CAUSAL, expected_code_passes=2, **drawing)
    path = tmp_path / "model.safetensors"
    save_module(model, path, kind="video-model", config=model.config)
    asked = full_size_model(stpt=CAUSAL, num_frames=4).config
    assert trainable_video_model(path, asked).config == model.config


def test_a_tokenizer_takes_frames_of_another_size(tmp_path, model):
    path = tmp_path / "tokenizer.safetensors"
    save_module(model.tokenizer, path, kind="tokenizer", config=model.tokenizer.config)
    asked = small_video_config(vqgan=VQGANConfig(height_px=64, width_px=96))
    begun = trainable_video_model(path, asked)
    assert begun.tokenizer.grid == (4, 6)
    assert begun.tokenizer.codebook_size == model.tokenizer.codebook_size


def test_stage_two_begins_with_int8_weights_of_stage_one(tmp_path, model):
    module = VideoModelModule(model)
    path = tmp_path / "stage-1.safetensors"
    save_video_model(module, path)
    stored = load_video_model(path, dtype=torch.float32).tokenizer.state_dict()
    assert any(not torch.equal(stored[name], value) for name, value in model.tokenizer.state_dict().items())
    initialize_from(module, path)
    with torch.no_grad():
        model.tokenizer.encoder[1].weight += 0.1
    with pytest.raises(InputError, match="another tokenizer"):
        initialize_from(module, path)


def test_drive_tasks_refuse_clips_without_motion(tmp_path, capsys):
    assert run("train", "motion-field", "data.source=general", "--out", tmp_path / "run") == 2
    assert "without ego motion" in capsys.readouterr().err


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Two captioned videos and one captioned picture."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    for name in ("first", "second", "third"):
        write_video(folder / f"{name}.mp4", list(rng.integers(0, 255, (16, 48, 64, 3), dtype=np.uint8)), 8.0)
        (folder / f"{name}.txt").write_text(f"the {name} video")
    for name in ("one", "two"):
        write_image(folder / f"{name}.png", rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
        (folder / f"{name}.txt").write_text(f"picture {name}")
    return folder


def test_sets_are_made_of_captioned_files(media, tmp_path):
    captions = CaptionedSourceConfig(path=str(media), cache="")
    config = GeneralDataConfig(
        path=str(tmp_path / "set"),
        num_clips=5,
        num_images=9,
        num_validation_clips=1,
        num_validation_images=1,
        frames_per_clip=FRAMES,
        height_px=32,
        width_px=48,
    )
    train, validation = open_or_read(captions, config, rate_hz=8.0)
    assert train.clips.shape == (5, FRAMES, 32, 48, 3)
    assert len(train.images) == 1
    seen = {caption for wordings in train.clip_captions for caption in wordings}
    held_out = {caption for wordings in validation.clip_captions for caption in wordings}
    assert len(seen) == 2
    assert not seen & held_out
    again, _ = open_or_read(captions, config, rate_hz=8.0)
    np.testing.assert_array_equal(again.clips, train.clips)
    with pytest.raises(InputError, match=r"general\.path"):
        open_or_read(captions, config, rate_hz=4.0)


def test_files_without_videos_are_refused(media, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in media.glob("*.png"):
        (folder / path.name).write_bytes(path.read_bytes())
    config = GeneralDataConfig(path=str(tmp_path / "set"))
    with pytest.raises(InputError, match="0 videos"):
        open_or_read(CaptionedSourceConfig(path=str(folder), cache=""), config, rate_hz=8.0)
    assert not Path(config.path).exists()


def test_a_set_of_clips_alone_is_tokenized(sets, model, tmp_path):
    items = [CaptionedItem(frames=np.array(sets[0].clips[0]), captions=["a"], frame_captions=["a"])]
    shape = (FRAMES, 128, 224)
    content = write_set(tmp_path / "set", iter(items), num_clips=1, num_images=0, clip_shape=shape, facts={})
    found = open_or_tokenize(content, model.tokenizer)
    assert found.images.shape == (0, 112)
    assert open_or_tokenize(content, model.tokenizer).clips.shape == (1, FRAMES, 112)


def test_tokens_without_images_give_images_from_clips(tokens, model):
    train = tokens[0]
    content = replace(train.content, image_captions=[])
    bare = CaptionedTokens(clips=train.clips, images=train.images[:0], content=content)
    task = VideoModelTask(VideoTrainingConfig(image_share=0.5), bare, tokens[1], model)
    batches = task.batches(start_step=1, batch_size=1, seed=0, rank=0, world_size=1)
    assert next(batches)["token_ids"].shape == (FRAMES, 1, 112)
