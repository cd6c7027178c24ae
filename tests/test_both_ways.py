"""Holes filled in forwards and backwards in time, and training on clips played backwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_video_model

from drivesim import generate
from drivesim.generate import GenerateConfig, inpaint, num_inpainting_rounds, stylize
from drivesim.tokenizer.vqgan import to_uint8
from drivesim.training.captioned_set import CaptionedItem, write_set
from drivesim.training.captioned_tokens import open_or_tokenize
from drivesim.training.video_model import VideoModelTask, VideoTrainingConfig
from drivesim.video import drawn_across
from drivesim.world_model.clip_completion import GuidanceConfig
from drivesim.world_model.long_clips import clip_tokens
from drivesim.world_model.pretrained_video import load_video_model, trainable_video_model, write_video_model
from drivesim.world_model.prompts import played_backwards
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.stpt import STPTConfig
from drivesim.world_model.video_model import VideoModelConfig

H, W, S, FRAMES = 64, 96, 24, 4
QUICK = SamplerConfig(num_decode_steps=2, temperature=1.0)


@pytest.fixture(scope="module")
def model():
    return small_video_model(stpt=CAUSAL, expected_code_passes=2, fills_both_ways=True)


@pytest.fixture(scope="module")
def one_way(model):
    other = small_video_model(stpt=CAUSAL, expected_code_passes=2)
    other.load_state_dict(model.state_dict())
    return other


@pytest.fixture(scope="module")
def clip():
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 8, 12, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((1, 8, 8, 1), dtype=np.uint8))


def box(rows=32, columns=48, frames=None):
    mask = np.zeros((H, W), dtype=bool)
    mask[:rows, :columns] = True
    return mask if frames is None else np.repeat(mask[None], frames, axis=0)


def quick(**changes):
    return GenerateConfig(**{"sampler": QUICK, "guidance": GuidanceConfig(scale=1.0)} | changes)


@pytest.fixture
def prompts(model, monkeypatch):
    """Return the list to which the model adds what it is asked to complete."""
    asked, complete = [], model.complete

    def told(ids, hidden, prompts, **options):
        asked.append((prompts[0], options["negative_prompt"], hidden.squeeze(0).any(-1).tolist()))
        return complete(ids, hidden, prompts=prompts, **options)

    monkeypatch.setattr(model, "complete", told)
    return asked


# ------------------------------------------------------------------------------------------------ inpainting


def test_the_other_way_is_the_clip_played_backwards_and_marked_so(model, clip, prompts):
    mask = box(frames=FRAMES)
    mask[0] = False
    inpaint(model, clip, mask, "a dog runs left", quick(negative_prompt="fog"))
    assert prompts == [
        ("a dog runs left", "fog", [False, True, True, True]),
        ("backwards: a dog runs left", "backwards: fog", [True, True, True, False]),
    ]


def test_a_left_out_prompt_stays_left_out(model, clip, prompts):
    inpaint(model, clip, box(), "", quick())
    assert [(prompt, negative) for prompt, negative, _ in prompts] == [("", ""), ("", "")]
    assert played_backwards("") == ""


def test_pictures_show_the_mean_of_the_codes_of_both_ways(model, one_way, clip, monkeypatch):
    codes = []

    def shown(model, codes_TSQ, draw=generate.clip_pictures):
        codes.append(codes_TSQ)
        return draw(model, codes_TSQ)

    monkeypatch.setattr(generate, "clip_pictures", shown)
    inpaint(one_way, clip, box(), "a dog", quick(seed=3))
    inpaint(one_way, clip[::-1].copy(), box(), played_backwards("a dog"), quick(seed=3))
    both = inpaint(model, clip, box(), "a dog", quick(seed=3))
    forward, backward, mean = codes
    torch.testing.assert_close(mean, (forward + backward.flip(0)) / 2)
    assert not torch.equal(mean, forward)
    with torch.no_grad():
        frames = to_uint8(model.decode_codes(mean.unsqueeze(0)).squeeze(0)).numpy()
    assert np.array_equal(both.frames[0], np.where(box()[..., None], frames, clip))


def test_tokens_are_the_nearest_to_what_is_shown_and_given_ones_stay(model, clip, monkeypatch):
    codes = []
    monkeypatch.setattr(generate, "clip_pictures", lambda _, codes_TSQ: codes.append(codes_TSQ) or clip)
    result = inpaint(model, clip, box(), "a dog", quick(num_samples=2))
    given = clip_tokens(model, drawn_across(clip, box(frames=FRAMES))).numpy()
    for ids, codes_TSQ in zip(result.token_ids, codes, strict=True):
        assert np.array_equal(ids[result.is_given], given[result.is_given])
        nearest = model.tokenizer.quantizer.nearest(codes_TSQ).numpy()
        assert np.array_equal(ids[~result.is_given], nearest[~result.is_given])
    assert not torch.equal(*codes)
    inpaint(model, clip, box(), "a dog", quick(seed=1))
    assert torch.equal(codes[2], codes[1])


@pytest.mark.parametrize(
    ("mask", "frames", "ways"),
    [
        pytest.param(box(), FRAMES, 2, id="small"),
        pytest.param(box(64, 48), FRAMES, 2, id="half"),
        pytest.param(box(64, 64), FRAMES, 1, id="most-of-it"),
        pytest.param(box(), 1, 1, id="image"),
    ],
)
def test_what_is_mostly_hidden_and_pictures_are_filled_in_forwards(model, clip, prompts, mask, frames, ways):
    told = []
    config = quick(num_samples=2, on_round=told.append)
    inpaint(model, clip[:frames], mask, "a dog", config)
    assert len(prompts) == 2 * ways
    assert told == list(range(1, num_inpainting_rounds(model, config, mask, num_frames=frames) + 1))


def test_rounds_of_both_ways_leave_out_frames_before_and_after_the_mask(model, clip):
    told, mask = [], box(frames=FRAMES)
    mask[[0, 1, 3]] = False
    config = quick(on_round=told.append)
    inpaint(model, clip, mask, "a dog", config)
    assert told == list(range(1, num_inpainting_rounds(model, config, mask, num_frames=FRAMES) + 1))


def test_other_weights_and_other_tasks_go_forwards(model, one_way, clip, prompts):
    stylize(model, clip, "ink", config=quick())
    assert len(prompts) == 1
    told = []
    config = quick(on_round=told.append)
    forwards = inpaint(one_way, clip, box(), "a dog", config)
    assert len(told) == num_inpainting_rounds(one_way, config, box(), num_frames=FRAMES)
    both = inpaint(model, clip, box(), "a dog", config)
    assert len(told) == 3 * num_inpainting_rounds(one_way, config, box(), num_frames=FRAMES)
    assert not np.array_equal(forwards.frames, both.frames)


def test_weights_say_that_they_fill_in_both_ways(model, tmp_path):
    path = tmp_path / "video.safetensors"
    write_video_model(model, path)
    assert load_video_model(path).config.fills_both_ways
    assert trainable_video_model(path, VideoModelConfig()).config.fills_both_ways


# -------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def driving():
    return small_video_model(stpt=CAUSAL, num_action_tokens=1)


@pytest.fixture(scope="module")
def tokens(driving, tmp_path_factory):
    """Return tokens of clips of noise with actions."""
    rng = np.random.default_rng(0)

    def item():
        frames = rng.integers(0, 256, (FRAMES, H, W, 3), dtype=np.uint8)
        twist = np.ones((FRAMES, 2), dtype=np.float32)
        return CaptionedItem(frames=frames, captions=["a dog"], frame_captions=["a dog"], twist=twist)

    content = write_set(
        tmp_path_factory.mktemp("noise") / "train",
        [item() for _ in range(6)],
        num_clips=6,
        num_images=0,
        clip_shape=(FRAMES, H, W),
        facts={},
    )
    return open_or_tokenize(content, driving.tokenizer)


def windows(tokens, model, monkeypatch, **settings):
    """Return a batch of windows with each one's caption, clip and times."""
    config = VideoTrainingConfig(image_share=0.0, frames_per_window=3, **settings)
    task, texts = VideoModelTask(config, tokens, tokens, model), []
    prepared = task.encoder.prepared
    with monkeypatch.context() as patch:
        patch.setattr(task.encoder, "prepared", lambda new, **how: texts.extend(new) or prepared(new, **how))
        batch = next(task.batches(start_step=0, batch_size=64, seed=0, rank=0, world_size=1))
    found = []
    for window in batch["token_ids"].numpy():
        is_same = (tokens.clips[:, None] == window[:, None]).all(
            -1
        )  # (clips, frames of the window, of the clip)
        row = int(is_same.any(-1).all(-1).argmax())
        found.append((row, is_same[row].argmax(-1).tolist()))
    return batch, texts, found


def test_clips_played_backwards_say_so(tokens, driving, monkeypatch):
    batch, texts, found = windows(tokens, driving, monkeypatch, backward_share=0.5, prompt_drop=0.0)
    is_marked = np.array([text == "backwards: a dog" for text in texts])
    assert set(texts) == {"a dog", "backwards: a dog"}
    assert 0.25 < is_marked.mean() < 0.75
    for backward, (_, times) in zip(is_marked, found, strict=True):
        assert np.diff(times).tolist() == ([-1, -1] if backward else [1, 1])
    assert {times[0] for _, times in found} == {0, 1, FRAMES - 2, FRAMES - 1}
    is_told = batch["twist"].isfinite().all(-1).all(-1).numpy()
    np.testing.assert_array_equal(is_told, ~is_marked)  # no car drives so


def test_dropped_prompts_carry_no_mark(tokens, driving, monkeypatch):
    _, texts, found = windows(tokens, driving, monkeypatch, backward_share=1.0, prompt_drop=0.5)
    assert set(texts) == {"", "backwards: a dog"}
    assert all(times[0] > times[-1] for _, times in found)


def test_holes_of_clips_played_backwards_are_in_their_frames(tokens, driving, monkeypatch):
    batch, _, found = windows(tokens, driving, monkeypatch, backward_share=0.5, hole_share=1.0)
    for frames, (row, times) in zip(batch["holed_frames"].numpy(), found, strict=True):
        is_same = (frames == tokens.content.clips[row, times]).all(-1)
        assert is_same.mean() > 0.4  # all but the hole, and less than that of other frames of noise


def test_no_clip_is_played_backwards_unless_asked(tokens, driving, monkeypatch):
    _, texts, found = windows(tokens, driving, monkeypatch, prompt_drop=0.0)
    assert set(texts) == {"a dog"}
    assert all(times[0] < times[-1] for _, times in found)


# ------------------------------------------------------------------------------------------ what is refused


def test_going_both_ways_is_for_models_that_see_no_later_frames():
    with pytest.raises(ValueError, match="fills_both_ways is for frame-causal models"):
        VideoModelConfig(fills_both_ways=True, stpt=STPTConfig(is_frame_causal=False))


def test_going_both_ways_is_learned_from_clips_played_backwards():
    with pytest.raises(ValueError, match="set backward_share above 0"):
        VideoTrainingConfig(model=VideoModelConfig(fills_both_ways=True))
