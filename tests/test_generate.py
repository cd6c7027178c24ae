"""The tasks as functions: what is given stays, what is drawn follows seed, text, guidance and actions."""

from functools import partial

import numpy as np
import pytest
import torch
from small_models import small_video_model, small_world_model

from drivesim.errors import InputError
from drivesim.generate import (
    GenerateConfig,
    action_to_video,
    image_to_video,
    inpaint,
    num_rounds,
    predict,
    predicted_length,
    stylize,
    text_to_video,
)
from drivesim.generate_actions import actions_of, checked_actions, read_actions, twists
from drivesim.world_model.long_clips import clip_tokens, fill_windows, windows
from drivesim.world_model.sampler import Sampled, SamplerConfig, fill_in
from drivesim.world_model.video_model import GuidanceConfig

H, W, S = 64, 96, 24
UNGUIDED = GuidanceConfig(scale=0)
QUICK = SamplerConfig(num_decode_steps=2, temperature=1.0)


@pytest.fixture(scope="module")
def model():
    return small_video_model()


@pytest.fixture(scope="module")
def driver():
    return small_world_model()


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 255, (4, H, W, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def road():
    """One frame for the driving model, smooth so that motion is seen."""
    noise = np.random.default_rng(1).integers(0, 255, (1, 16, 28, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((1, 8, 8, 1), dtype=np.uint8))


def quick(**changes):
    return GenerateConfig(**{"sampler": QUICK, "guidance": UNGUIDED} | changes)


def box(frames=None):
    """Return a mask that no token boundary meets."""
    mask = np.zeros((H, W), dtype=bool)
    mask[10:37, 20:55] = True
    return mask if frames is None else np.repeat(mask[None], frames, axis=0)


# ---------------------------------------------------------------------------------------- what is given stays


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(lambda m, c, config: predict(m, c[:3], "", config), id="predict"),
        pytest.param(lambda m, c, config: image_to_video(m, c[0], "a dog", config), id="image"),
        pytest.param(lambda m, c, config: inpaint(m, c, box(), "a dog", config), id="inpaint"),
        pytest.param(lambda m, c, config: inpaint(m, c[:1], box(1), "", config), id="inpaint-image"),
        pytest.param(lambda m, c, config: stylize(m, c, "ink", strength=0.5, config=config), id="stylize"),
        pytest.param(lambda m, c, config: stylize(m, c[:1], "", config=config), id="stylize-image"),
        pytest.param(
            lambda m, c, config: predict(m, np.tile(c, (3, 1, 1, 1)), "", config), id="predict-long"
        ),
        pytest.param(
            lambda m, c, config: inpaint(m, np.tile(c, (3, 1, 1, 1)), box(), "", config), id="inpaint-long"
        ),
    ],
)
def test_visible_tokens_are_never_altered(model, clip, task):
    before = clip.copy()
    result = task(model, clip, quick(num_samples=2, guidance=GuidanceConfig(scale=3.0)))
    assert np.array_equal(clip, before)
    given = result.is_given
    tokens = clip_tokens(model, np.tile(clip, (5, 1, 1, 1)))[: len(given)].numpy()
    assert given.any()
    assert not given.all()
    for sample in result.token_ids:
        assert np.array_equal(sample[given], tokens[given])
    assert result.frames.shape == (2, len(given), H, W, 3)
    assert result.frames.dtype == np.uint8
    assert result.rate_hz == model.config.rate_hz


def test_a_text_alone_is_given_nothing(model):
    result = text_to_video(model, "a dog", quick())
    assert result.frames.shape == (1, 4, H, W, 3)
    assert not result.is_given.any()
    assert text_to_video(model, "", quick(num_frames=1)).frames.shape == (1, 1, H, W, 3)


@pytest.mark.parametrize("mask", [box(), box(4)])
def test_pixels_outside_the_mask_are_identical(model, clip, mask):
    frames = inpaint(model, clip, mask, "a dog", quick(num_samples=2)).frames
    assert np.array_equal(frames[:, :, ~box()], np.stack([clip, clip])[:, :, ~box()])
    assert (frames[:, :, box()] != clip[:, box()]).any()


def test_each_frame_can_have_its_own_mask(model, clip):
    mask = box(4)
    mask[2] = False
    result = inpaint(model, clip, mask, "", quick())
    assert np.array_equal(result.frames[0, 2], clip[2])
    assert result.is_given.all(1).tolist() == [False, False, True, False]


def test_a_full_mask_is_text_to_video(model, clip):
    everything = np.ones((H, W), dtype=bool)
    inpainted, drawn = (
        inpaint(model, clip, everything, "a dog", quick()),
        text_to_video(model, "a dog", quick()),
    )
    assert np.array_equal(inpainted.frames, drawn.frames)


@pytest.mark.parametrize(("strength", "hidden"), [(1e-9, 1), (0.25, 6), (0.5, 12), (1.0, S)])
def test_strength_is_the_share_that_is_redrawn_in_all_frames(model, clip, strength, hidden):
    given = stylize(model, clip, "ink", strength=strength, config=quick()).is_given
    assert (~given).sum(1).tolist() == [hidden] * 4
    assert (given == given[0]).all()


# ------------------------------------------------------------------------------- seeds, guidance, prompts


def test_seeds_reproduce_and_samples_differ(model):
    draw = lambda **changes: text_to_video(model, "a dog", quick(**changes))  # noqa: E731
    three = draw(seed=5, num_samples=3)
    assert np.array_equal(three.frames, draw(seed=5, num_samples=3).frames)
    assert len({sample.tobytes() for sample in three.token_ids}) == 3
    assert np.array_equal(three.token_ids[2], draw(seed=7).token_ids[0])


def test_guidance_of_0_is_no_guidance(model):
    ids, hidden = torch.zeros(1, 4 * S, dtype=torch.int64), torch.ones(1, 4 * S, dtype=torch.bool)
    prepared = model.prompt_encoder.prepared(["a dog"])

    @torch.no_grad()
    def logits_of(ids_BS, hidden_BS):
        logits = model(ids_BS.view(1, 4, S), hidden_BS.view(1, 4, S), prepared)
        return logits.flatten(1, 2)

    plain = fill_in(logits_of, ids, hidden, QUICK, torch.Generator().manual_seed(0)).token_ids_BS.numpy()
    result = text_to_video(model, "a dog", quick(negative_prompt="fog"))
    assert np.array_equal(result.token_ids.reshape(1, -1), plain)


def test_guidance_and_the_negative_prompt_change_what_is_drawn(model):
    strong = GuidanceConfig(scale=20.0)
    plain, guided, away = (
        text_to_video(model, "a dog", quick(guidance=guidance, negative_prompt=negative)).token_ids
        for guidance, negative in ((UNGUIDED, ""), (strong, ""), (strong, "fog over a river"))
    )
    assert not np.array_equal(plain, guided)
    assert not np.array_equal(guided, away)


def test_settings_left_out_are_those_of_the_weights(model):
    own = GenerateConfig(sampler=model.config.sampler, guidance=model.config.guidance)
    one, other = (text_to_video(model, "a dog", config).token_ids for config in (None, own))
    assert np.array_equal(one, other)


def test_rounds_are_counted_over_samples_and_windows(model, clip):
    told = []
    config = quick(num_samples=2, num_frames=9, on_round=told.append)
    predict(model, clip[:1], "", config)
    assert told == list(range(1, num_rounds(model, config, num_given=1, num_frames=9) + 1))
    assert len(told) == 2 * 2 * 4


# ----------------------------------------------------------------------------------------------- long clips


@pytest.mark.parametrize("window", [1, 2, 5, 16])
@pytest.mark.parametrize("given", [0, 1, 7, 30])
@pytest.mark.parametrize("length", [1, 4, 16, 17, 31, 40])
def test_windows_meet_and_overlap_by_half(length, window, given):
    if given >= length:
        return
    parts = windows(length, window, given)
    assert parts[-1].stop == length
    assert all(part.stop - part.start == min(window, length) for part in parts)
    finished = given
    for part in parts:
        assert part.stop > finished  # something new
        assert part.start <= finished
        assert part.start == 0 or finished - part.start >= window // 2
        finished = part.stop


def test_later_windows_see_the_frames_that_were_drawn_and_keep_them():
    ids, hidden = torch.zeros(11, 3, dtype=torch.int64), torch.ones(11, 3, dtype=torch.bool)
    ids[0], hidden[0] = 100, False
    seen = []

    def complete(ids_BTS, hidden_BTS):
        seen.append((ids_BTS[0].clone(), hidden_BTS[0].clone()))
        filled = torch.where(hidden_BTS, len(seen), ids_BTS).flatten(1)
        return Sampled(token_ids_BS=filled, confidence_BS=filled)

    filled = fill_windows(ids, hidden, 4, complete)
    assert filled[:, 0].tolist() == [100, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert seen[1][0][:, 0].tolist() == [1, 1, 0, 0]
    assert seen[1][1].any(1).tolist() == [False, False, True, True]
    assert not ids[1:].any()
    assert hidden[1:].all()


def test_long_predictions_keep_earlier_frames(model, clip):
    config = partial(quick, seed=3)
    first = predict(model, clip[:1], "a dog", config(num_frames=4)).token_ids
    long = predict(model, clip[:1], "a dog", config(num_frames=10)).token_ids
    assert long.shape == (1, 10, S)
    assert np.array_equal(long[:, :4], first)


def test_a_prediction_adds_half_a_window_to_what_is_long(model, clip):
    length = partial(predicted_length, model)
    assert length(GenerateConfig(), num_given=1) == 4
    assert length(GenerateConfig(), num_given=3) == 5
    assert length(GenerateConfig(num_frames=3), num_given=1) == 3
    assert predict(model, clip[:3], "", quick()).frames.shape[1] == 5


# -------------------------------------------------------------------------------------------------- actions


def test_actions_move_things(driver, road):
    def drive(*actions):
        return action_to_video(driver, road, np.array(actions)).frames[0].astype(int)

    standing, straight = drive((0.0, 0.0)), drive((0.0, 12.0))
    left, right = drive((0.4, 12.0), (0.4, 12.0)), drive((-0.4, 12.0), (-0.4, 12.0))
    assert np.abs(straight - standing).mean() > 1
    assert np.abs(left - right).mean() > 1
    assert np.array_equal(left, drive((0.4, 12.0), (0.4, 12.0)))


def test_a_drive_is_what_comes_after_the_given_frames(driver, road):
    told = []
    sampler = SamplerConfig(temperature=2.0)
    config = GenerateConfig(num_samples=2, seed=4, sampler=sampler, on_round=told.append)
    result = action_to_video(driver, np.concatenate([road, road]), np.full((3, 2), 0.1), config=config)
    assert result.frames.shape == (2, 3, 128, 224, 3)
    assert result.token_ids.shape == (2, 3, 112)
    assert result.rate_hz == driver.rate_hz
    assert told == list(range(1, 7))
    assert not np.array_equal(*result.token_ids)
    again = action_to_video(
        driver,
        np.concatenate([road, road]),
        np.full((3, 2), 0.1),
        config=GenerateConfig(seed=5, sampler=sampler),
    )
    assert np.array_equal(result.token_ids[1], again.token_ids[0])


def test_twists_follow_the_bicycle():
    straight, turning, braking = twists(checked_actions([(0.0, 8.0), (0.1, 8.0), (0.0, 0.0)]), 1 / 6)
    assert straight.tolist() == [8.0, 0.0]
    assert turning[1] == pytest.approx(8.0 * np.tan(0.1) / 2.8)
    assert 7.0 < braking[0] < 8.0


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], "at least one"),
        ([1.0, 2.0], "at least one"),
        ([(0.0, 8.0, 1.0)], "at least one"),
        ([(0.0, 8.0), (np.nan, 8.0)], "action 1 is"),
        ([(0.0, np.inf)], "action 0 is"),
        ([(0.0, 300.0)], "from 0 to 20 m/s"),
        ([(0.0, -1.0)], "from 0 to 20 m/s"),
        ([(1.5, 5.0)], "within 0.5 rad"),
        ([("left", "fast")], "rows of two numbers"),
    ],
)
def test_actions_that_no_car_can_follow_are_refused(actions, expected):
    with pytest.raises(InputError, match=expected):
        checked_actions(actions)


def test_actions_come_from_a_file_or_are_held(tmp_path):
    path = tmp_path / "drive.csv"
    path.write_text("\ufeffspeed_mps,note,steering_rad\n8,straight,0\n7.5,left,0.1\n", encoding="utf-8")
    assert read_actions(path).tolist() == [[0.0, 8.0], [0.1, 7.5]]
    assert actions_of(None, 0.1, None, 2).tolist() == [[0.1, 8.0], [0.1, 8.0]]
    with pytest.raises(InputError, match="leave out steering"):
        actions_of(path, None, 3.0, None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"steering,speed\n0,8\n", "lack the column steering_rad"),
        (b"", "lack the column steering_rad"),
        (b"steering_rad,speed_mps\n", "hold no row"),
        (b"steering_rad,speed_mps\n0,8\n0,fast\n", r"row 1 of actions .* write two numbers"),
        (b"steering_rad,speed_mps\n0\n", "row 0 of actions"),
        (b"steering_rad,speed_mps\nnan,8\n", "action 0 is"),
        (b"\xff\xfe\x00s", "save it as CSV"),
        (None, "check the path"),
    ],
)
def test_bad_action_files_are_named(tmp_path, content, expected):
    path = tmp_path / "drive.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=expected):
        read_actions(path)


# ------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m, c: predict(m, c, "", quick(num_frames=4)), "nothing is left to predict"),
        (lambda m, c: predict(m, c[:0], "", quick()), "T >= 1"),
        (lambda m, c: predict(m, c[:, 1:], "", quick()), "resize them"),
        (lambda m, c: predict(m, c.astype(float), "", quick()), "must be uint8"),
        (lambda m, c: inpaint(m, c, box()[1:], "", quick()), r"the mask is \(63, 96\)"),
        (lambda m, c: inpaint(m, c, box(3), "", quick()), r"the mask is \(3, 64, 96\)"),
        (lambda m, c: inpaint(m, c, ~np.ones((H, W), dtype=bool), "", quick()), "covers nothing"),
        (lambda m, c: stylize(m, c, "ink", strength=0, config=quick()), r"strength 0 is not in \(0, 1\]"),
        (lambda m, c: stylize(m, c, "ink", strength=float("nan"), config=quick()), "strength nan"),
        (lambda m, c: stylize(m, c, "ink", strength=1.01, config=quick()), "strength 1.01"),
        (lambda m, c: text_to_video(m, "a " * 100, quick()), "shorten it"),
        (lambda m, c: text_to_video(m, "a", quick(negative_prompt="\ud800", guidance=None)), "no character"),
    ],
)
def test_bad_input_is_named(model, clip, call, expected):
    with pytest.raises(InputError, match=expected):
        call(model, clip)


def test_frames_of_another_size_do_not_drive(driver, clip):
    with pytest.raises(InputError, match="resize them"):
        action_to_video(driver, clip, np.zeros((1, 2)))


@pytest.mark.parametrize(
    "bad", [{"num_samples": 0}, {"num_frames": 0}, {"seed": -1}, {"seed": 2**63}, {"num_frames": -3}]
)
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GenerateConfig(**bad)
