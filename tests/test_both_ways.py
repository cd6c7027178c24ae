"""Holes filled in forwards and backwards in time, and training on clips played backwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_video_model

from drivesim import generate
from drivesim.errors import InputError
from drivesim.generate import GenerateConfig, goes_both_ways, inpaint, num_inpainting_rounds, stylize
from drivesim.seamless import joined, reconciled
from drivesim.tokenizer.vqgan import QuantizerKind, VQGANConfig, to_uint8
from drivesim.training.captioned_set import CaptionedItem, write_set
from drivesim.training.captioned_tokens import open_or_tokenize
from drivesim.training.video_model import VideoModelTask, VideoTrainingConfig
from drivesim.video import drawn_across
from drivesim.world_model.clip_completion import GuidanceConfig
from drivesim.world_model.long_clips import clip_tokens, forward_share
from drivesim.world_model.masking import ClipMaskConfig
from drivesim.world_model.pretrained_video import load_video_model, trainable_video_model, write_video_model
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
    """Return a list of what the model reads whenever there is guidance: a prompt and a negative one."""
    read, prepared = [], model.prompt_encoder.prepared

    def told(texts, **how):
        if len(texts) == 2:
            read.append(tuple(texts))
        return prepared(texts, **how)

    monkeypatch.setattr(model.prompt_encoder, "prepared", told)
    return read


@pytest.fixture
def codes(monkeypatch):
    """Return a list of the codebook vectors of all clips that are drawn as pictures."""
    drawn = []

    def noted(model, codes_TSQ, draw=generate.clip_pictures):
        drawn.append(codes_TSQ)
        return draw(model, codes_TSQ)

    monkeypatch.setattr(generate, "clip_pictures", noted)
    return drawn


# ------------------------------------------------------------------------------------------------ inpainting


def test_the_other_way_is_the_clip_played_backwards_and_marked_so(model, clip, prompts):
    inpaint(model, clip, box(), "a dog runs left", quick(negative_prompt="fog"))
    assert prompts == [("a dog runs left", "fog"), ("backwards: a dog runs left", "backwards: fog")]


@pytest.mark.parametrize("empty", ["", " "])
def test_a_left_out_prompt_stays_left_out(model, clip, prompts, empty):
    inpaint(model, clip, box(), empty, quick(negative_prompt="fog"))
    assert prompts == [(empty, "fog")] * 2  # guidance does not lead away from the mark


def test_pictures_show_what_the_mean_of_the_codes_of_both_ways_is_nearer_to(model, one_way, clip, codes):
    inpaint(one_way, clip, box(), "a dog", quick(seed=3))
    inpaint(one_way, clip[::-1].copy(), box(), "backwards: a dog", quick(seed=3))
    forward, backward = codes[0], codes[1].flip(0)
    codes.clear()
    both = inpaint(model, clip, box(), "a dog", quick(seed=3))
    for shown, expected in zip(codes, [forward, backward, (forward + backward) / 2], strict=True):
        torch.testing.assert_close(shown, expected)
    assert not torch.equal(forward, backward)
    with torch.no_grad():
        drawn = [to_uint8(model.decode_codes(one.unsqueeze(0)).squeeze(0)).numpy() for one in codes]
    assert np.array_equal(both.frames[0], joined(clip, reconciled(*drawn), box(frames=FRAMES)))


def test_tokens_are_the_nearest_to_the_mean_and_given_ones_stay(model, clip, codes):
    result = inpaint(model, clip, box(), "a dog", quick(num_samples=2))
    given = clip_tokens(model, drawn_across(clip, box(frames=FRAMES))).numpy()
    means = codes[2::3]
    for ids, mean_TSQ in zip(result.token_ids, means, strict=True):
        assert np.array_equal(ids[result.is_given], given[result.is_given])
        nearest = model.tokenizer.quantizer.nearest(mean_TSQ).numpy()
        assert np.array_equal(ids[~result.is_given], nearest[~result.is_given])
    assert not torch.equal(*means)
    inpaint(model, clip, box(), "a dog", quick(seed=1))
    assert torch.equal(codes[-1], means[1])


MOSTLY = box(frames=FRAMES)
MOSTLY[1] = box(64, 64)  # of one frame most is hidden
LAST, FIRST = box(frames=FRAMES), box(frames=FRAMES)
LAST[:2] = FIRST[2:] = False
BEGINNING = box(H, W, frames=FRAMES)
BEGINNING[1:] = False  # what is hidden is seen later, by one way alone


@pytest.mark.parametrize(
    ("mask", "frames", "asked", "ways"),
    [
        pytest.param(box(), FRAMES, None, 2, id="small"),
        pytest.param(box(64, 48), FRAMES, None, 2, id="half"),
        pytest.param(box(64, 64), FRAMES, None, 1, id="most-of-all-frames"),
        pytest.param(MOSTLY, FRAMES, None, 1, id="most-of-one-frame"),
        pytest.param(MOSTLY, FRAMES, True, 2, id="most-of-one-frame-asked-for"),
        pytest.param(box(), FRAMES, False, 1, id="not-asked-for"),
        pytest.param(box(), 1, True, 1, id="image"),
        pytest.param(LAST, FRAMES, True, 1, id="seen-before-alone"),
        pytest.param(FIRST, FRAMES, None, 2, id="seen-after-alone"),
        pytest.param(BEGINNING, FRAMES, None, 2, id="all-of-the-beginning"),
        pytest.param(box().astype(np.uint8) * 255, FRAMES, None, 2, id="grey-values"),
    ],
)
def test_what_goes_both_ways_and_how_many_rounds_that_takes(model, clip, prompts, mask, frames, asked, ways):
    told, clip = [], clip[:frames]
    config = quick(num_samples=2, on_round=told.append, both_ways=asked)
    inpaint(model, clip, mask, "a dog", config)
    assert len(prompts) == 2 * ways
    assert goes_both_ways(model, clip, mask, config) == (ways == 2)
    assert told == list(range(1, num_inpainting_rounds(model, clip, mask, config) + 1))


def test_rounds_are_those_of_the_frames_in_the_order_of_each_way(clip):
    sampler = SamplerConfig(num_decode_steps=4)
    model = small_video_model(stpt=CAUSAL, fills_both_ways=True, next_rounds_ratio=0.5)
    told, mask = [], box(frames=FRAMES)
    mask[FRAMES - 1] = False  # the first way begins with a hidden frame, the other one does not
    config = quick(sampler=sampler, on_round=told.append)
    inpaint(model, clip, mask, "a dog", config)
    assert told == list(range(1, num_inpainting_rounds(model, clip, mask, config) + 1))
    assert len(told) == (4 + 2 * 3) + 2 * 3


def test_a_way_counts_the_more_the_fewer_frames_ago_it_saw_what_is_hidden():
    hidden = torch.tensor(
        [[0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [1] * 5, [1, 1, 0, 1, 1], [0] * 5]
    )
    share = forward_share(hidden.bool().T).T
    expected = [
        [0.5, 0.75, 0.5, 0.25, 0.5],
        [0, 0, 0, 0, 0.5],
        [0.5, 1, 1, 1, 1],
        [0.5] * 5,
        [0, 0, 0.5, 1, 1],
        [0.5] * 5,
    ]
    torch.testing.assert_close(share, torch.tensor(expected))


def test_codes_of_the_two_ways_are_weighed_by_what_they_saw(model, one_way, clip, codes):
    inpaint(one_way, clip, FIRST, "a dog", quick())
    backward = inpaint(one_way, clip[::-1].copy(), FIRST[::-1], "backwards: a dog", quick())
    both = inpaint(model, clip, FIRST, "a dog", quick())
    torch.testing.assert_close(codes[-1], codes[1].flip(0))  # only that way has seen what is there
    assert not torch.equal(codes[-1], codes[0])
    assert np.abs(both.frames[0].astype(int) - backward.frames[0, ::-1]).max() <= 1


@pytest.mark.parametrize("quantizer", list(QuantizerKind))
def test_weights_that_show_drawn_codes_go_both_ways_too(clip, quantizer):
    sizes = {
        "channels": [8, 8, 16],
        "num_res_blocks": [1, 1, 1],
        "fsq_levels": [4, 4, 3],
        "codebook_size": 48,
    }
    vqgan = VQGANConfig(height_px=H, width_px=W, quantizer=quantizer, **sizes)
    model = small_video_model(stpt=CAUSAL, fills_both_ways=True, vqgan=vqgan)
    result = inpaint(model, clip, box(), "a dog", quick())
    given = clip_tokens(model, drawn_across(clip, box(frames=FRAMES))).numpy()
    assert np.array_equal(result.token_ids[0][result.is_given], given[result.is_given])
    assert np.array_equal(result.frames[0][:, ~box()], clip[:, ~box()])
    forwards = inpaint(model, clip, box(), "a dog", quick(both_ways=False)).token_ids[0]
    backwards = inpaint(
        model, clip[::-1].copy(), box(), "backwards: a dog", quick(both_ways=False)
    ).token_ids[0]
    quantizer = model.tokenizer.quantizer
    codes = torch.stack(
        [quantizer.codes(torch.from_numpy(ids.copy())) for ids in (forwards, backwards[::-1])]
    )
    nearest = quantizer.nearest(codes.mean(0)).numpy()
    assert np.array_equal(result.token_ids[0][~result.is_given], nearest[~result.is_given])


@pytest.mark.parametrize("long", ["prompt", "negative"])
def test_prompts_that_fit_fit_both_ways(model, clip, long):
    longest = " ".join(["dog"] * model.config.bytes_encoder.max_pieces)
    prompt, negative = (longest, "fog") if long == "prompt" else ("fog", longest)
    result = inpaint(model, clip, box(), prompt, quick(negative_prompt=negative))
    assert result.frames.shape == (1, *clip.shape)
    with pytest.raises(InputError, match="shorten it"):
        inpaint(model, clip, box(), f"{longest} dog", quick())


def test_weights_that_go_forwards_only_refuse_both_ways(one_way, clip):
    with pytest.raises(InputError, match="trained without clips played backwards"):
        inpaint(one_way, clip, box(), "a dog", quick(both_ways=True))
    with pytest.raises(InputError, match="see all frames at once and need no second way"):
        inpaint(small_video_model(), clip, box(), "a dog", quick(both_ways=True))


def test_other_weights_and_other_tasks_go_forwards(model, one_way, clip, prompts):
    stylize(model, clip, "ink", config=quick())
    assert len(prompts) == 1
    forwards = inpaint(one_way, clip, box(), "a dog", quick())
    chosen = inpaint(model, clip, box(), "a dog", quick(both_ways=False))
    both = inpaint(model, clip, box(), "a dog", quick())
    assert np.array_equal(forwards.frames, chosen.frames)
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


def test_training_says_whether_weights_fill_in_both_ways(tokens, capsys):
    model = small_video_model(stpt=CAUSAL)
    for share in (0.0, 0.5, 0.0):
        said = capsys.readouterr().err
        VideoModelTask(VideoTrainingConfig(backward_share=share), tokens, tokens, model)
        assert model.config.fills_both_ways == (share > 0)
    assert not said
    assert "forwards only" in " ".join(capsys.readouterr().err.split())


def test_evaluation_looks_at_both_ways(tokens, driving):
    task = VideoModelTask(VideoTrainingConfig(backward_share=0.5), tokens, tokens, driving)
    metrics = task.evaluate(task.model).metrics
    content = replace(tokens.content, clip_captions=[["backwards: a dog"]] * len(tokens.clips))
    reversed_tokens = replace(tokens, clips=tokens.clips[:, ::-1], content=content)
    task = VideoModelTask(VideoTrainingConfig(), tokens, reversed_tokens, driving)
    backwards = task.evaluate(task.model).metrics
    assert metrics["loss_backwards"] == pytest.approx(backwards["loss"])
    assert metrics["loss"] != pytest.approx(backwards["loss"])
    assert "loss_backwards" not in backwards


def test_windows_played_backwards_are_entered_like_others(tokens, driving, monkeypatch):
    masks = ClipMaskConfig(tube=0.0, scattered=0.0, prefix=1.0, box=0.0)
    settings = {"backward_share": 1.0, "whole_share": 1.0, "masks": masks}
    batch, _, found = windows(tokens, driving, monkeypatch, **settings)
    for is_masked, (_, times) in zip(batch["is_masked"], found, strict=True):
        assert times[0] == FRAMES - 1 or not is_masked[0].any()
    assert batch["is_masked"][:, 0].any()


def test_no_clip_is_played_backwards_unless_asked(tokens, driving, monkeypatch):
    _, texts, found = windows(tokens, driving, monkeypatch, prompt_drop=0.0)
    assert set(texts) == {"a dog"}
    assert all(times[0] < times[-1] for _, times in found)


# ------------------------------------------------------------------------------------------ what is refused


def test_going_both_ways_is_for_models_that_see_no_later_frames():
    with pytest.raises(ValueError, match="fills_both_ways is for frame-causal models"):
        VideoModelConfig(fills_both_ways=True, stpt=STPTConfig(is_frame_causal=False))
