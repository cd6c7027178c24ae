"""The tasks as functions: what is given stays, what is drawn follows seed, text, guidance and actions."""

from functools import partial

import numpy as np
import pytest
import torch
from small_models import small_video_model, small_world_model

from drivesim.dynamics import twists
from drivesim.errors import InputError
from drivesim.generate import (
    GenerateConfig,
    action_to_video,
    image_to_video,
    inpaint,
    num_drive_rounds,
    num_inpainting_rounds,
    num_rounds,
    predict,
    predicted_length,
    stylize,
    text_to_video,
)
from drivesim.scene.nuscenes import embedded_dataset
from drivesim.video import drawn_across
from drivesim.world_model.clip_completion import GuidanceConfig
from drivesim.world_model.drives import scene_start
from drivesim.world_model.long_clips import clip_tokens, fill_windows, mask_of_tokens, windows
from drivesim.world_model.sampler import Sampled, SamplerConfig, fill_in
from drivesim.world_model.video_model import VideoModel

H, W, S = 64, 96, 24
UNGUIDED = GuidanceConfig(scale=0)
QUICK = SamplerConfig(num_decode_steps=2, temperature=1.0)


@pytest.fixture(scope="module", params=[False, True], ids=["at once", "frame by frame"])
def model(request):
    return small_video_model(stpt={"is_frame_causal": request.param})


@pytest.fixture(scope="module")
def whole():
    """A model that draws all frames at once."""
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
def test_visible_tokens_are_never_altered(model, clip, task, request):
    before = clip.copy()
    result = task(model, clip, quick(num_samples=2, guidance=GuidanceConfig(scale=3.0)))
    assert np.array_equal(clip, before)
    given = result.is_given
    seen = np.tile(clip, (5, 1, 1, 1))[: len(given)]
    if "inpaint" in request.node.callspec.id:
        seen = drawn_across(seen, box(len(given)))  # what is under the mask is not read
    tokens = clip_tokens(model, seen).numpy()
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


@pytest.mark.parametrize(("rows", "columns"), [((10, 37), (20, 55)), ((0, 30), (0, 40)), ((1, H), (1, W))])
def test_what_is_under_the_mask_is_not_read(model, clip, rows, columns):
    mask = np.zeros((4, H, W), dtype=bool)
    mask[:, slice(*rows), slice(*columns)] = True
    mask[1] = True
    other = np.where(mask[..., None], 255 - clip, clip)
    results = [inpaint(model, frames, mask, "a dog", quick()) for frames in (clip, other)]
    assert np.array_equal(results[0].token_ids, results[1].token_ids)


@pytest.mark.parametrize(
    ("rows", "columns", "hidden"),
    [
        ((10, 37), (20, 55), [7, 8]),  # little of its first row and last column
        ((0, 25), (0, 41), [0, 1, 2, 6, 7]),
        ((1, H), (1, W), list(range(S))),
        ((17, 25), (30, 40), [7, 8]),  # more than half of none
        ((16, 32), (16, 24), [7]),  # half of one, none of the others
        ((16, 32), (16, 40), [7]),  # half of the second
    ],
)
def test_tokens_of_which_half_is_seen_stay(rows, columns, hidden):
    mask = np.zeros((1, H, W), dtype=bool)
    mask[:, slice(*rows), slice(*columns)] = True
    assert mask_of_tokens(mask, (4, 6))[0].nonzero().flatten().tolist() == hidden


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


def test_guidance_of_0_is_no_guidance(whole):
    ids, hidden = torch.zeros(1, 4 * S, dtype=torch.int64), torch.ones(1, 4 * S, dtype=torch.bool)
    prepared = whole.prompt_encoder.prepared(["a dog"])

    @torch.no_grad()
    def logits_of(ids_BS, hidden_BS):
        logits = whole(ids_BS.view(1, 4, S), hidden_BS.view(1, 4, S), prepared)
        return logits.flatten(1, 2)

    plain = fill_in(logits_of, ids, hidden, QUICK, torch.Generator().manual_seed(0)).token_ids_BS.numpy()
    result = text_to_video(whole, "a dog", quick(negative_prompt="fog"))
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


def test_rounds_are_counted_over_samples_and_windows(whole, clip):
    told = []
    config = quick(num_samples=2, num_frames=9, on_round=told.append)
    predict(whole, clip[:1], "", config)
    assert told == list(range(1, num_rounds(whole, config, num_given=1, num_frames=9) + 1))
    assert len(told) == 2 * 2 * 4


def test_the_rounds_of_inpainting_leave_out_frames_before_the_mask(whole, clip):
    told, frames = [], np.tile(clip, (3, 1, 1, 1))
    mask = np.zeros((12, H, W), dtype=bool)
    mask[7:] = box()
    config = quick(on_round=told.append)
    inpaint(whole, frames, mask, "", config)
    assert len(told) == num_inpainting_rounds(whole, frames, mask, config) == 2 * 3
    assert num_inpainting_rounds(whole, frames, box(), config) == 2 * 5


@pytest.mark.parametrize("task", ["text", "drive"])
def test_noise_is_drawn_where_the_model_is(model, driver, road, monkeypatch, task):
    devices, generator = [], torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda *given: devices.append(given) or generator(*given))
    if task == "text":
        text_to_video(model, "", quick(num_frames=1))
    else:
        action_to_video(driver, road, np.zeros((1, 2)))
    assert devices == [(torch.device("cpu"),)]


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


def test_a_drive_goes_on_at_the_motion_of_the_given_frames(driver, road, acting_model, clip):
    frames, actions = np.concatenate([road, road]), np.array([(0.0, 8.0)])

    def drive(twist):
        return action_to_video(driver, frames, actions, twist=twist).frames

    straight = drive(None)
    assert np.array_equal(straight, drive(np.array([(8.0, 0.0)] * 2)))
    assert not np.array_equal(straight, drive(np.array([(8.0, 0.0), (2.0, 0.5)])))
    for model, given in ((driver, frames), (acting_model, clip[:2])):
        with pytest.raises(InputError, match=r"2 given frames need finite twists \(2, 2\), got \(1, 2\)"):
            action_to_video(model, given, actions, twist=np.zeros((1, 2)))
        with pytest.raises(InputError, match=r"got \[\[8.0, nan\], \[8.0, 0.0\]\]"):
            action_to_video(model, given, actions, twist=np.array([(8.0, np.nan), (8.0, 0.0)]))


def test_a_scene_is_the_start_of_a_drive(driver):
    scene = embedded_dataset().load("scene-2001", rate_hz=driver.rate_hz, width_px=224, height_px=128)
    start = scene_start(scene, 3)
    assert np.array_equal(start.frames, np.stack([scene.frames[t] for t in range(3)]))
    assert start.twist.tolist() == [[scene.speed_mps[t], scene.yaw_rate_radps[t]] for t in range(3)]
    ego = scene.ego_state(2)
    assert start.places.pose[0].tolist() == [ego.x_m, ego.y_m, ego.yaw_rad]
    assert len(scene_start(scene, 10**6).frames) == len(scene.frames)


@pytest.fixture(scope="module")
def acting_model():
    return small_video_model(num_action_tokens=2)


def test_a_video_model_that_reads_actions_draws_the_drive(acting_model, clip, monkeypatch):
    seen = []

    def complete(ids_BTS, hidden_BTS, **options):
        seen.append((ids_BTS.clone(), hidden_BTS.clone(), options))
        return VideoModel.complete(acting_model, ids_BTS, hidden_BTS, **options)

    monkeypatch.setattr(acting_model, "complete", complete)
    actions = np.array([(0.0, 8.0), (0.1, 8.0)])
    result = action_to_video(acting_model, clip[:2], actions, config=quick(num_samples=2))
    assert result.frames.shape == (2, 2, H, W, 3)
    assert result.token_ids.shape == (2, 2, S)
    assert not result.is_given.any()
    assert result.rate_hz == acting_model.config.rate_hz
    ids, hidden, options = seen[0]
    assert torch.equal(ids[0, :2], clip_tokens(acting_model, clip[:2]))
    assert hidden.all(-1)[0].tolist() == [False, False, True, True]
    assert options["prompts"] == [""]
    expected = twists(actions, 1 / acting_model.config.rate_hz, num_before=2)
    assert options["twist_BTA"].numpy() == pytest.approx(expected[None])
    assert expected[:2].tolist() == [[8.0, 0.0]] * 2


def test_a_video_model_follows_actions_and_guidance_is_towards_them(acting_model, clip):
    def drive(steering_rad, scale):
        config = quick(sampler=SamplerConfig(num_decode_steps=2), guidance=GuidanceConfig(scale=scale))
        actions = np.array([(steering_rad, 8.0)] * 3)
        return action_to_video(acting_model, clip[:1], actions, config=config).token_ids

    assert not np.array_equal(drive(0.4, 20.0), drive(-0.4, 20.0))
    assert not np.array_equal(drive(0.4, 20.0), drive(0.4, 0.0))
    assert np.array_equal(drive(0.4, 20.0), drive(0.4, 20.0))


def test_rounds_of_drives_are_counted(driver, acting_model, road, clip):
    for model, frames in ((driver, road), (acting_model, clip[:1])):
        told = []
        config = GenerateConfig(num_samples=2, on_round=told.append)
        action_to_video(model, frames, np.array([(0.0, 5.0)] * 2), config=config)
        assert told == list(range(1, num_drive_rounds(model, config, num_given=1, num_actions=2) + 1))


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
        (lambda m, c: inpaint(m, c.astype(float), box(), "", quick()), "must be uint8"),
        (lambda m, c: inpaint(m, c[:, 1:], box()[1:], "", quick()), "must be uint8"),
        (lambda m, c: inpaint(m, c, ~np.ones((H, W), dtype=bool), "", quick()), "covers nothing"),
        (lambda m, c: action_to_video(m, c[:1], [(0.0, 8.0)]), "without action tokens reads no actions"),
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


def test_frames_of_another_size_do_not_drive(driver, acting_model, clip):
    for model, frames in ((driver, clip), (acting_model, clip[:1, 1:]), (driver, clip[:0])):
        with pytest.raises(InputError, match="resize them"):
            action_to_video(model, frames, np.zeros((1, 2)))


def test_a_drive_is_no_longer_than_a_video_model_sees(acting_model, clip):
    with pytest.raises(InputError, match=r"2 frames are given and 3 actions follow, 5 .* see 4 at once"):
        action_to_video(acting_model, clip[:2], np.zeros((3, 2)))


@pytest.mark.parametrize(
    "bad", [{"num_samples": 0}, {"num_frames": 0}, {"seed": -1}, {"seed": 2**63}, {"num_frames": -3}]
)
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GenerateConfig(**bad)
