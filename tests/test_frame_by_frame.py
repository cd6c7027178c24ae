"""Video models that finish frame after frame: what a frame sees, clips of any length, guidance, training windows."""

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_video_config, small_video_model

from drivesim.errors import InputError
from drivesim.generate import GenerateConfig, num_rounds, predict, text_to_video
from drivesim.training.captioned_set import CaptionedItem, write_set
from drivesim.training.captioned_tokens import CaptionedTokens
from drivesim.training.initial_weights import initialize_from
from drivesim.training.loop import TrainingConfig, fit
from drivesim.training.video_model import VideoModelModule, VideoModelTask, VideoTrainingConfig
from drivesim.world_model import clip_completion, long_clips
from drivesim.world_model.attention import ImageAttention, PatchAttention, place_angles, turned
from drivesim.world_model.clip_completion import GuidanceConfig, GuidanceSchedule, guided
from drivesim.world_model.long_clips import clip_codes, clip_pictures
from drivesim.world_model.masking import ClipMaskConfig, draw_frame_masks
from drivesim.world_model.pretrained_video import load_video_model, save_video_model, trainable_video_model
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.stpt import STPTConfig
from drivesim.world_model.video_model import VideoModelConfig

S, K = 24, 48
GREEDY = SamplerConfig(num_decode_steps=1, temperature=0.0)
UNGUIDED = GuidanceConfig(scale=0.0)


@pytest.fixture(scope="module")
def model():
    return small_video_model(stpt=CAUSAL)


def clips(batch, frames, num_given, seed=0):
    """Return tokens, and which are hidden: all after the given frames."""
    ids = torch.randint(K, (batch, frames, S), generator=torch.Generator().manual_seed(seed))
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    hidden[:, num_given:] = True
    return ids, hidden


def completed(model, ids, hidden, texts, **options):
    options = {"sampler": GREEDY, "guidance": UNGUIDED} | options
    return model.complete(ids, hidden, texts, **options).token_ids_BS.view(ids.shape)


@torch.no_grad()
def logits_of(model, ids, hidden, texts, **options):
    return model(ids, hidden, model.prompt_encoder.prepared(texts), **options)


# --------------------------------------------------------------------------------------------------- seeing


@pytest.mark.parametrize("num_given", [0, 2])
def test_training_and_drawing_see_the_same(model, num_given):
    ids, hidden = clips(2, 7, num_given)
    texts = ["a red dog", "fog"]
    drawn = completed(model, ids, hidden, texts)
    assert torch.equal(drawn[:, :num_given], ids[:, :num_given])
    seen = logits_of(model, drawn, hidden, texts).argmax(-1)
    assert torch.equal(seen[:, num_given:], drawn[:, num_given:])


def test_the_logits_of_rounds_are_those_of_training_with_tokens_visible(model, monkeypatch):
    ids, _ = clips(2, 6, 0)
    hidden = (torch.arange(S) % 2 == 0).expand(ids.shape).clone()
    hidden[:, :2] = False
    looks = []

    def head(features, guide, forward=model.stpt.head.forward):
        looks.append(forward(features, guide))
        return looks[-1]

    monkeypatch.setattr(model.stpt.head, "forward", head)
    drawn = completed(model, ids, hidden, ["a red dog", "fog"])
    monkeypatch.undo()
    seen = logits_of(model, drawn, hidden, ["a red dog", "fog"])
    assert len(looks) == 4
    for t, logits in enumerate(looks, start=2):
        torch.testing.assert_close(logits, seen[:, t], rtol=0, atol=1e-4)


def test_a_frame_sees_those_before_it_only(model):
    ids, hidden = clips(1, 5, 0)
    ids_other = ids.clone()
    ids_other[:, 2] = (ids[:, 2] + 1) % K
    one, other = (logits_of(model, tokens, hidden, [""]) for tokens in (ids, ids_other))
    assert torch.equal(one[:, :3], other[:, :3])
    assert all(not torch.equal(one[:, t], other[:, t]) for t in (3, 4))


def test_what_later_frames_see_can_differ_from_what_is_filled_in(model):
    ids, hidden = clips(1, 4, 0)
    past = (ids + 1) % K
    one, other = (logits_of(model, ids, hidden, [""], past_ids_BTS=seen) for seen in (ids, past))
    assert torch.equal(one[:, 0], other[:, 0])
    assert not torch.equal(one[:, 1], other[:, 1])


def test_an_image_is_the_first_frame_of_a_clip(model):
    ids, _ = clips(3, 4, 0)
    hidden = (torch.arange(S) % 3 == 0).expand(ids.shape)
    texts = ["", "a dog", "fog over a river"]
    images = logits_of(model, ids[:, :1], hidden[:, :1], texts)
    torch.testing.assert_close(images, logits_of(model, ids, hidden, texts)[:, :1], rtol=0, atol=1e-5)
    alone = logits_of(model, ids[1:2, :1], hidden[1:2, :1], texts[1:2])
    torch.testing.assert_close(images[1:2], alone, rtol=0, atol=1e-5)


def test_a_clip_may_have_any_length_and_goes_on_as_it_began(model):
    ids, hidden = clips(1, 3 * model.config.num_frames, 1)
    long = completed(model, ids, hidden, ["a dog"])
    short = completed(model, ids[:, :5], hidden[:, :5], ["a dog"])
    assert torch.equal(long[:, :5], short)
    config = GenerateConfig(num_frames=11, sampler=GREEDY)
    assert text_to_video(model, "a dog", config).frames.shape[:2] == (1, 11)


def test_visible_tokens_of_every_frame_are_kept_and_seen(model):
    ids, _ = clips(2, 5, 0)
    hidden = (torch.arange(S) % 2 == 0).expand(ids.shape).clone()
    hidden[:, 2] = False  # a frame that hides nothing in the middle of a clip
    sampler = SamplerConfig(num_decode_steps=3, temperature=1.0)
    generator = torch.Generator().manual_seed(1)
    sampled = model.complete(ids, hidden, ["a dog", ""], sampler=sampler, generator=generator)
    drawn, confidence = (x.view(ids.shape) for x in (sampled.token_ids_BS, sampled.confidence_BS))
    assert torch.equal(drawn[~hidden], ids[~hidden])
    assert (confidence[~hidden] == 1).all()
    assert (confidence[hidden] < 1).all()
    assert not torch.equal(drawn[hidden], ids[hidden])


def test_rounds_are_counted_frame_by_frame(model):
    told = []
    picture = np.zeros((64, 96, 3), np.uint8)
    config = GenerateConfig(
        num_samples=2, num_frames=6, sampler=SamplerConfig(num_decode_steps=4), on_round=told.append
    )
    predict(model, np.stack([picture] * 2), "", config)
    assert told == list(range(1, num_rounds(model, config, num_given=2, num_frames=6) + 1))
    assert len(told) == 2 * 4 * 4


@pytest.mark.parametrize(("ratio", "next_rounds"), [(1.0, 5), (0.4, 2), (0.01, 1)])
def test_frames_that_follow_another_may_have_fewer_rounds(ratio, next_rounds):
    model = small_video_model(stpt=CAUSAL, next_rounds_ratio=ratio)
    told = []
    config = GenerateConfig(num_frames=4, sampler=SamplerConfig(num_decode_steps=5), on_round=told.append)
    text_to_video(model, "a dog", config)
    assert len(told) == num_rounds(model, config, num_given=0, num_frames=4) == 5 + 3 * next_rounds


@pytest.mark.parametrize(("ratio", "next_revisions"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_frames_that_follow_another_may_be_revised_less(ratio, next_revisions):
    model = small_video_model(stpt=CAUSAL, next_revisions_ratio=ratio)
    told = []
    sampler = SamplerConfig(num_decode_steps=2, num_revisions=8)
    text_to_video(model, "a dog", GenerateConfig(num_frames=3, sampler=sampler, on_round=told.append))
    assert len(told) == 10 + 2 * (2 + next_revisions)


def test_pictures_show_the_mean_of_the_codes_that_fit():
    model = small_video_model(stpt=CAUSAL, expected_code_passes=2)
    ids, drawn = clips(2, 4, 1)
    drawn[:, :, :5] = False
    prompts = ["a dog", ""]
    codes = model.expected_codes(ids, drawn, prompts)
    quantizer = model.tokenizer.quantizer
    assert torch.equal(codes[~drawn], quantizer.codes(ids)[~drawn])
    table = quantizer.codes(torch.arange(quantizer.codebook_size))
    place = torch.arange(S)
    lattice = (place // 6 + place % 6) % 2  # four rows and six columns
    for index in (0, 1):
        hidden = drawn & (lattice == index)
        means = logits_of(model, ids, hidden, prompts).softmax(-1) @ table
        torch.testing.assert_close(codes[hidden], means[hidden])
    frames = model.decode_codes(codes)
    assert (frames.shape, float(frames.abs().max()) <= 1) == ((2, 4, 3, 64, 96), True)


@pytest.mark.parametrize("length", [4, 7])
def test_pictures_of_a_long_clip_do_not_depend_on_how_it_is_cut(monkeypatch, length):
    model = small_video_model(stpt={**CAUSAL, "num_layers": 1}, expected_code_passes=2)
    ids, drawn = (x[0] for x in clips(1, 12, 0))
    codes = clip_codes(model, ids, drawn, "a dog")
    pictures = clip_pictures(model, codes)
    monkeypatch.setattr(long_clips, "FRAMES_AT_ONCE", length)
    torch.testing.assert_close(clip_codes(model, ids, drawn, "a dog"), codes)
    np.testing.assert_allclose(clip_pictures(model, codes), pictures, atol=1)


def test_means_of_codes_are_shown_if_the_weights_say_so(model):
    config = GenerateConfig(num_frames=3)
    drawn = text_to_video(model, "a dog", config)
    softer = small_video_model(stpt=CAUSAL, expected_code_passes=1)
    softer.load_state_dict(model.state_dict())
    shown = text_to_video(softer, "a dog", config)
    np.testing.assert_array_equal(shown.token_ids, drawn.token_ids)
    assert not np.array_equal(shown.frames, drawn.frames)
    picture = drawn.frames[0, 0]
    going_on = [predict(some, picture[None], "a dog", config).frames[0, 0] for some in (model, softer)]
    np.testing.assert_array_equal(*going_on)  # given tokens are shown as they are


def test_only_frames_that_matter_are_looked_at(model, monkeypatch):
    ids, hidden = clips(1, 20, 12)
    hidden[:, 14:] = False
    calls = []
    frame = model.stpt.frame
    monkeypatch.setattr(model.stpt, "frame", lambda *given, **more: calls.append(1) or frame(*given, **more))
    drawn = completed(model, ids, hidden, ["a dog"])
    assert model.stpt.reach == 8
    assert (
        len(calls) == 8 + 2 + 1
    )  # within reach of the hidden frames; these two; the first of them into the memory
    monkeypatch.undo()
    assert torch.equal(drawn[:, 12:14], logits_of(model, drawn, hidden, ["a dog"]).argmax(-1)[:, 12:14])
    assert torch.equal(completed(model, ids, torch.zeros_like(hidden), [""]), ids)


def test_clips_that_hide_different_frames_are_refused(model):
    ids, hidden = clips(2, 4, 1)
    hidden[0, 2, 0] = False
    with pytest.raises(ValueError, match=r"\[23, 24\] in frame 2"):
        model.complete(ids, hidden, ["", ""])


@pytest.mark.parametrize("is_autocast", [False, True])
def test_it_runs_in_bfloat16(is_autocast):
    model = small_video_model(stpt=CAUSAL)
    if not is_autocast:
        model.bfloat16()
    ids, hidden = clips(2, 5, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        drawn = completed(model, ids, hidden, ["a dog", ""], guidance=GuidanceConfig())
        memory = model.stpt.empty_memory(1, torch.device("cpu"), model.stpt.memory_dtype)
    assert memory[0].keys.dtype is torch.bfloat16
    assert torch.equal(drawn[:, :1], ids[:, :1])


def test_frames_of_few_hidden_tokens_count_as_many_rounds(model):
    ids, hidden = clips(1, 3, 1)
    hidden[:, 1:, 1:] = False
    told = []
    model.complete(ids, hidden, [""], sampler=SamplerConfig(num_decode_steps=5), on_round=told.append)
    assert told == [1, 2, 3, 4, 5] * 2


@pytest.mark.parametrize(("ratio", "next_rounds"), [(1.0, 3), (0.4, 1), (0.01, 1)])
def test_first_frames_are_revised_under_guidance(ratio, next_rounds, monkeypatch):
    model = small_video_model(stpt=CAUSAL, next_rounds_ratio=ratio)
    ids, hidden = clips(1, 2, 0)
    scales, told = [], []
    monkeypatch.setattr(
        clip_completion, "guided", lambda own, other, scale: scales.append(scale) or guided(own, other, scale)
    )
    config = GenerateConfig(
        sampler=SamplerConfig(num_decode_steps=3, num_revisions=2, revised_share=0.3, temperature=1.0)
    )
    sampled = model.complete(ids, hidden, ["a ring"], sampler=config.sampler, on_round=told.append)
    assert told == [1, 2, 3, 4, 5, *range(1, next_rounds + 1)]
    assert scales[:5] == [0.0, 1.0, 2.0, 2.0, 2.0]  # rising, then as they are
    assert scales[-1] == 2.0
    assert len(scales) == len(told) == num_rounds(model, config, num_given=0, num_frames=2)
    assert sampled.token_ids_BS.shape == (1, ids[0].numel())


def test_frames_that_follow_another_have_a_temperature_of_their_own(model):
    calm = small_video_model(stpt=CAUSAL, next_temperature_ratio=0.0)
    ids, hidden = clips(1, 3, 0)
    draws = [
        calm.complete(
            ids,
            hidden,
            [""],
            sampler=SamplerConfig(num_decode_steps=1, temperature=1.0),
            guidance=UNGUIDED,
            generator=torch.Generator().manual_seed(seed),
        ).token_ids_BS.view(ids.shape)
        for seed in (0, 1)
    ]
    assert not torch.equal(draws[0][:, 0], draws[1][:, 0])
    for drawn in draws:
        assert torch.equal(drawn[:, 1:], logits_of(model, drawn, hidden, [""]).argmax(-1)[:, 1:])


# ------------------------------------------------------------------------------------------------- guidance


def test_every_frame_is_guided_by_its_own_past(model):
    ids, hidden = clips(1, 4, 1)
    texts, negative = ["a red dog"], "fog"
    guidance = GuidanceConfig(scale=30.0, schedule=GuidanceSchedule.CONSTANT)
    drawn = completed(model, ids, hidden, texts, negative_prompt=negative, guidance=guidance)
    conditional, unconditional = (logits_of(model, drawn, hidden, [text]) for text in (*texts, negative))
    wanted = guided(conditional, unconditional, 30.0).argmax(-1)
    assert torch.equal(drawn[:, 1:], wanted[:, 1:])
    assert not torch.equal(drawn[:, 1:], conditional.argmax(-1)[:, 1:])


@pytest.mark.parametrize(("scale", "rows"), [(2.0, 4), (0.0, 2)])
def test_both_passes_of_guidance_share_one_look_at_a_frame(scale, rows, monkeypatch):
    model = small_video_model(stpt=CAUSAL)
    ids, hidden = clips(2, 3, 0)
    seen, frame = [], model.stpt.frame

    def noted(ids_RS, is_masked_RS, **others):
        seen.append((len(ids_RS), bool(is_masked_RS.any())))
        return frame(ids_RS, is_masked_RS, **others)

    monkeypatch.setattr(model.stpt, "frame", noted)
    sampler, guidance = SamplerConfig(num_decode_steps=4, temperature=1.0), GuidanceConfig(scale=scale)
    model.complete(ids, hidden, ["a dog", "a cat"], sampler=sampler, guidance=guidance)
    assert {count for count, _ in seen} == {rows}
    assert sum(is_drawing for _, is_drawing in seen) == 4 * 3  # rounds of each frame


def test_actions_lead_the_frames_after_them():
    model = small_video_model(stpt=CAUSAL, num_action_tokens=2)
    ids, hidden = clips(1, 4, 1)
    calm = torch.tensor([5.0, 0.0]).expand(1, 4, 2).clone()
    turned = calm.clone()
    turned[:, 2, 1] = 0.5
    one, other = (logits_of(model, ids, hidden, [""], twist_BTA=twist) for twist in (calm, turned))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2], other[:, 2])


# ------------------------------------------------------------------------------------------ places in a frame


def test_rotary_places_tell_how_far_apart_tokens_are_and_nothing_else():
    grid, head_dim = (4, 6), 16
    angles = place_angles(grid, head_dim)
    assert angles.shape == (S, head_dim // 2)
    turn = (angles.cos(), angles.sin())
    q, k = torch.randn(2, 1, head_dim, generator=torch.Generator().manual_seed(0))
    products = turned(q.expand(S, -1), turn) @ turned(k.expand(S, -1), turn).T
    by_place = products.view(*grid, *grid)
    torch.testing.assert_close(by_place[0, 0, 1, 2], by_place[2, 3, 3, 5])
    others = [by_place[0, 0, row, column] for row, column in ((0, 2), (1, 1), (1, 3), (2, 2))]
    assert all(abs(other - by_place[0, 0, 1, 2]) > 1e-3 for other in others)


@pytest.mark.parametrize("has_places", [False, True])
def test_attention_within_frames_knows_places_if_it_is_to(has_places):
    torch.manual_seed(0)
    attention = PatchAttention(32, 2, grid=(4, 6), stride=1, has_places=has_places)
    torch.nn.init.normal_(attention.out.weight, std=0.5)
    x = torch.randn(1, S, 32)
    order = torch.randperm(S)
    with torch.no_grad():
        moved = attention.within_frames(x[:, order])
        expected = attention.within_frames(x)[:, order]
    assert torch.allclose(moved, expected, atol=1e-5) is not has_places


def test_settings_of_attention_that_would_do_nothing_are_refused():
    with pytest.raises(ValueError, match="has_frame_attention=true"):
        STPTConfig(has_frame_places=True)
    with pytest.raises(ValueError, match="IDENTITY"):
        STPTConfig(image_attention=ImageAttention.IDENTITY)


def test_places_need_heads_that_divide_and_one_patch():
    with pytest.raises(ValueError, match="multiple of 4"):
        PatchAttention(36, 2, grid=(4, 6), stride=1, has_places=True)
    with pytest.raises(ValueError, match="one patch"):
        PatchAttention(32, 2, grid=(4, 6), stride=2, has_places=True)


# ------------------------------------------------------------------------------- from the model of all frames


def test_a_model_of_whole_clips_can_go_on_frame_by_frame(tmp_path):
    whole = small_video_model(stpt={"has_frame_places": True})
    path = tmp_path / "whole.safetensors"
    save_video_model(VideoModelModule(whole), path)
    whole = load_video_model(path, dtype=torch.float32)
    asked = small_video_config(stpt=CAUSAL)
    begun = trainable_video_model(path, asked, is_turned=True).eval()
    assert begun.is_frame_causal
    assert begun.config.stpt.window == 3
    ids, _ = clips(2, 1, 0)
    hidden = (torch.arange(S) % 3 == 0).expand(ids.shape)
    for tokens, masks in ((ids, hidden), (ids, torch.ones_like(hidden))):
        images = [logits_of(m, tokens, masks, ["a dog", "fog"]) for m in (whole, begun)]
        torch.testing.assert_close(*images, rtol=0, atol=1e-5)  # an image has no past and no future
    for layer, before in zip(begun.stpt.layers, whole.stpt.layers, strict=True):
        new, old = layer.conv.weight.chunk(3, dim=1), before.conv.weight.chunk(3, dim=1)
        assert not new[0].any()
        assert torch.equal(new[1], old[0])
        assert torch.equal(new[2], old[1])
    tokenizers = [model.tokenizer.state_dict().values() for model in (whole, begun)]
    assert all(map(torch.equal, *tokenizers))
    with pytest.raises(InputError, match="other sizes"):
        trainable_video_model(path, asked)
    with pytest.raises(InputError, match="is_turned"):
        trainable_video_model(path, whole.config, is_turned=True)
    with pytest.raises(InputError, match="sees all frames at once"):
        initialize_from(VideoModelModule(begun), path)
    assert not trainable_video_model(path, VideoModelConfig()).is_frame_causal  # goes on as what it is


# ------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("share", ["tube", "scattered", "prefix", "box"])
def test_every_frame_of_a_training_clip_hides_something(share):
    config = ClipMaskConfig(**{name: float(name == share) for name in ("tube", "scattered", "prefix", "box")})
    masks = draw_frame_masks(config, 200, 5, (4, 6), torch.Generator().manual_seed(0))
    assert (masks.shape, masks.dtype) == ((200, 5, S), torch.bool)
    assert masks.any(-1).all()
    assert bool(masks.all()) is (share == "prefix")
    assert torch.equal(masks, masks[:, :1].expand_as(masks)) is (share in ("tube", "prefix"))
    assert torch.equal(masks, draw_frame_masks(config, 200, 5, (4, 6), torch.Generator().manual_seed(0)))


def test_full_masks_of_later_frames_are_those_of_their_kind():
    def drawn(kind, whole_share):
        shares = {name: float(name == kind) for name in ("tube", "scattered", "prefix", "box")}
        generator = torch.Generator().manual_seed(0)
        return draw_frame_masks(ClipMaskConfig(**shares), 50, 4, (8, 14), generator, whole_share=whole_share)

    tube, scattered, box = (drawn(kind, 1.0) for kind in ("tube", "scattered", "box"))
    assert torch.equal(tube, tube[:, :1].expand_as(tube))
    assert not tube.all(-1).all()
    assert scattered[:, 1:].all()
    assert not scattered[:, 0].all(-1).all()
    rectangle = box[:, 1]
    assert torch.equal(box[:, 1:], rectangle.unsqueeze(1).expand(-1, 3, -1))
    rows, columns = (rectangle.unflatten(-1, (8, 14)).any(axis) for axis in (2, 1))
    assert torch.equal(rectangle, (rows.unsqueeze(2) & columns.unsqueeze(1)).flatten(1))
    assert not drawn("scattered", 0.0)[:, 1:].all(-1).all()


@pytest.fixture
def tokens(tmp_path, model):
    """Return tokens of six clips of eight frames whose first code tells the clip, whose others tell the time."""

    def items():
        for i in range(7):
            frames = np.full((8 if i < 6 else 1, 64, 96, 3), 40 * i, np.uint8)
            yield CaptionedItem(frames=frames, captions=[f"clip {i}"], frame_captions=[f"frame of {i}"])

    content = write_set(
        tmp_path / "set", items(), num_clips=6, num_images=1, clip_shape=(8, 64, 96), facts={}
    )
    ids = np.empty((6, 8, S), np.int32)
    ids[..., 0] = np.arange(6)[:, None]
    ids[..., 1:] = np.arange(8)[None, :, None]
    return CaptionedTokens(clips=ids, images=ids[:1, 0], content=content)


def batches(tokens, model, **settings):
    config = VideoTrainingConfig(
        **{"prompt_drop": 0.0, "image_share": 0.0, "frames_per_window": 3} | settings
    )
    task = VideoModelTask(config, tokens, tokens, model)
    return next(task.batches(start_step=0, batch_size=200, seed=0, rank=0, world_size=1))


def test_windows_begin_anywhere_and_only_beginnings_are_drawn_from_text(tokens, model):
    batch = batches(tokens, model)
    times = batch["token_ids"][..., 1]
    assert torch.equal(times, times[:, :1] + torch.arange(3))
    is_start = times[:, 0] == 0
    assert 0.4 < is_start.float().mean() < 0.75  # half of them, and those of the others that happen to be
    assert set(times[:, 0].tolist()) == set(range(6))
    is_hidden = batch["is_masked"].any(-1)
    assert not is_hidden[~is_start, 0].any()
    assert is_hidden[is_start, 0].float().mean() > 0.75
    assert is_hidden[:, 1:].all()


def test_actions_are_those_of_the_windows(tokens):
    acting = small_video_model(stpt=CAUSAL, num_action_tokens=1)
    tokens.content.twist = np.stack([tokens.clips[..., 1], tokens.clips[..., 0]], -1).astype(np.float32)
    batch = batches(tokens, acting)
    assert torch.equal(batch["twist"][..., 0].int(), batch["token_ids"][..., 1])
    assert torch.equal(batch["twist"][..., 1].int(), batch["token_ids"][..., 0])


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1 / 6), (1.0, 1.0)])
def test_the_share_of_beginnings_can_be_chosen(tokens, model, share, expected):
    is_start = batches(tokens, model, start_share=share)["token_ids"][:, 0, 1] == 0
    assert is_start.float().mean() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_frames_that_follow_another_are_wholly_hidden_as_often_as_asked(tokens, model, share):
    masks = ClipMaskConfig(tube=0.0, scattered=1.0, prefix=0.0, box=0.0)
    batch = batches(tokens, model, masks=masks, start_share=1.0, whole_share=share)
    is_whole_BT = batch["is_masked"].all(-1).float()
    cosine = float(is_whole_BT[:, 0].mean())  # of first frames, by their rate alone
    assert cosine < 0.3
    assert float(is_whole_BT[:, 1:].mean()) == pytest.approx(share + (1 - share) * cosine, abs=0.1)


def test_the_past_is_noisy_and_the_targets_are_not(tokens, model):
    clean, noisy = (batches(tokens, model, context_noise=noise) for noise in (0.0, 0.4))
    assert torch.equal(clean["context_ids"], clean["token_ids"])
    assert torch.equal(clean["token_ids"], noisy["token_ids"])
    assert 0.1 < (noisy["context_ids"] != noisy["token_ids"]).float().mean() < 0.3


def test_the_past_is_the_true_one_unless_asked_otherwise(tokens, model):
    assert "is_drawn" not in batches(tokens, model)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_past_can_be_what_the_model_draws(tokens, share, precision):
    model = small_video_model(stpt=CAUSAL).requires_grad_(True)
    batch = batches(tokens, model, drawn_share=share, context_noise=0.0, frames_per_window=4)
    is_drawn = batch["is_drawn"]
    assert not is_drawn[:, [0, -1]].any()
    assert is_drawn[:, 1:-1].float().mean() == pytest.approx(share / 2, abs=0.1)
    passes = []
    module = VideoModelModule(model)
    model.register_forward_pre_hook(lambda *call: passes.append(call[1:]), with_kwargs=True)
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        module(batch)["loss"].backward()
    (drawing_ids, drawing_hidden, _), _ = passes[0]
    assert drawing_ids.shape == (int(is_drawn.flatten(1).any(-1).sum()), 3, S)
    assert drawing_hidden.all()
    past = passes[1][1]["past_ids_BTS"]
    assert torch.equal(past[~is_drawn], batch["token_ids"][~is_drawn].long())
    assert (past[is_drawn] != batch["token_ids"][is_drawn]).float().mean() > 0.5
    trained = [*model.stpt.layers.parameters(), *model.prompt_encoder.parameters()]
    assert all(parameter.grad is not None for parameter in trained)


def test_codes_that_weigh_more_are_not_drawn_more_often(tokens):
    model = small_video_model(stpt=CAUSAL)
    batch = batches(tokens, model, drawn_share=1.0)
    model.code_bias_K[1:] = -1e4  # as if training had weighed code 0 alone
    pasts = []
    module = VideoModelModule(model)
    model.register_forward_pre_hook(lambda *call: pasts.append(call[2].get("past_ids_BTS")), with_kwargs=True)
    module(batch)
    assert (pasts[1][batch["is_drawn"]] != 0).all()


def test_processes_that_draw_nothing_take_the_pass_all_the_same(tokens, model):
    batch = batches(tokens, model, drawn_share=1.0)
    batch["is_drawn"] = torch.zeros_like(batch["is_drawn"])
    passes = []
    hook = model.register_forward_pre_hook(lambda *call: passes.append(call[1:]), with_kwargs=True)
    VideoModelModule(model)(batch)
    hook.remove()
    assert len(passes) == 2
    assert torch.equal(passes[1][1]["past_ids_BTS"], batch["context_ids"].long())


def test_actions_lead_what_the_model_draws_of_the_past(tokens):
    acting = small_video_model(stpt=CAUSAL, num_action_tokens=1)
    tokens.content.twist = np.stack([tokens.clips[..., 1], tokens.clips[..., 0]], -1).astype(np.float32)
    batch = batches(tokens, acting, drawn_share=1.0, prompt_drop=0.5)
    assert torch.isfinite(VideoModelModule(acting)(batch)["loss"])


def test_what_is_hidden_and_drawn_depends_on_the_row_alone(tokens, model):
    config = VideoTrainingConfig(image_share=0.0, frames_per_window=4, whole_share=0.5, drawn_share=0.5)
    task = VideoModelTask(config, tokens, tokens, model)
    both = next(task.batches(start_step=3, batch_size=4, seed=0, rank=0, world_size=1))
    parts = [
        next(task.batches(start_step=3, batch_size=2, seed=0, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    for name in ("is_masked", "context_ids", "is_drawn", "drawn_by"):
        assert torch.equal(both[name], torch.cat([part[name] for part in parts])), name


def test_images_have_no_past(tokens, model):
    task = VideoModelTask(VideoTrainingConfig(image_share=0.5, frames_per_window=3), tokens, tokens, model)
    steps = task.batches(start_step=1, batch_size=2, seed=0, rank=0, world_size=1)
    batch = next(steps)
    assert batch["token_ids"].shape == (6, 1, S)
    assert "context_ids" not in batch
    assert batch["is_masked"].any(-1).all()


def test_training_lowers_the_loss(tokens, tmp_path):
    model = small_video_model(stpt=CAUSAL)
    settings = TrainingConfig(
        num_train_steps=60,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=2,
        accelerator="cpu",
        precision="32-true",
        ema_decay=0.5,
        evaluate_every=0,
    )
    task = VideoModelTask(VideoTrainingConfig(frames_per_window=3), tokens, tokens, model)
    before = task.evaluate(task.model.eval()).metrics["loss"]
    result = fit(task, settings, tmp_path / "run")
    assert result.metrics["loss"] < 0.5 * before


@pytest.mark.parametrize(
    "bad",
    [
        {"next_rounds_ratio": 0.0},
        {"next_rounds_ratio": 1.5},
        {"next_temperature_ratio": float("nan")},
        {"next_revisions_ratio": 1.5},
        {"expected_code_passes": -1},
        {"expected_code_passes": 1, "stpt": STPTConfig(is_frame_causal=False)},
    ],
)
def test_ratios_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        VideoModelConfig(**bad)


def test_drawn_pasts_need_frames_between_others():
    with pytest.raises(ValueError, match="frames_per_window must be >= 3, got 2"):
        VideoTrainingConfig(frames_per_window=2, drawn_share=0.5)


@pytest.mark.parametrize("share", ["whole_share", "drawn_share", "hole_share", "backward_share"])
def test_models_that_draw_all_frames_at_once_have_no_next_frames(tokens, share):
    config = VideoTrainingConfig(**{share: 0.5})
    with pytest.raises(InputError, match=rf"{share}( is)? 0\.5"):
        VideoModelTask(config, tokens, tokens, small_video_model())


@pytest.mark.parametrize("bad", [{"whole_share": -0.1}, {"drawn_share": 2}, {"backward_share": 1.5}])
def test_shares_of_what_is_hidden_or_drawn_are_shares(bad):
    with pytest.raises(ValueError, match=rf"{next(iter(bad))} must lie in \[0, 1\]"):
        VideoTrainingConfig(**bad)


@pytest.mark.parametrize("bad", [{"frames_per_window": 1}, {"context_noise": 1.0}, {"context_noise": -0.1}])
def test_settings_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match="frames_per_window"):
        VideoTrainingConfig(**bad)
