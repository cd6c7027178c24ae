"""The model of clips, drawn at once: guidance, isolation, prompts and actions, masks of training, int8 weights."""

import itertools

import pytest
import torch
from safetensors.torch import load_file
from small_models import small_video_config, small_video_model

from drivesim.checkpoint import load_state, read_checkpoint, save_module
from drivesim.errors import InputError
from drivesim.world_model.attention import ImageAttention, PatchAttention
from drivesim.world_model.clip_completion import GuidanceConfig, GuidanceSchedule, guided
from drivesim.world_model.masking import ClipMaskConfig, draw_clip_mask
from drivesim.world_model.pretrained_video import load_video_model
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.video_model import VideoModel, VideoModelConfig

GRID = (4, 6)
S, K = 24, 48
SHARES = ("tube", "scattered", "prefix", "box")


@pytest.fixture(scope="module")
def model():
    return small_video_model()


@pytest.fixture(scope="module")
def acting_model():
    return small_video_model(num_action_tokens=2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clips(batch, frames, seed=0):
    """Return tokens and which of them are hidden: every third."""
    ids = torch.randint(K, (batch, frames, S), generator=generator(seed))
    return ids, (torch.arange(S) % 3 == 0).expand(batch, frames, S)


@torch.no_grad()
def logits_of(model, ids, hidden, texts, twist=None):
    return model(ids, hidden, model.prompt_encoder.prepared(texts), twist_BTA=twist)


# ------------------------------------------------------------------------------------------------ guidance


def test_guidance_is_the_papers_expression():
    conditional, unconditional = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([0.5, 4.0, -1.0])
    assert torch.equal(guided(conditional, unconditional, 2.0), 3.0 * conditional - 2.0 * unconditional)
    assert torch.equal(guided(conditional, unconditional, 0.0), conditional)


def test_guidance_is_constant_or_rises():
    constant = GuidanceConfig(scale=3, schedule=GuidanceSchedule.CONSTANT)
    assert [constant.at(index, 4) for index in range(4)] == [3, 3, 3, 3]
    rising = GuidanceConfig(scale=3)
    assert [rising.at(index, 4) for index in range(4)] == [0, 1, 2, 3]
    assert rising.at(0, 1) == 3


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf"), 1e9])
def test_scales_without_meaning_are_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        GuidanceConfig(scale=scale)


@pytest.mark.parametrize(
    ("scale", "negative", "passes"), [(2.0, "", 2), (2.0, "fog", 2), (0.0, "fog", 1), (2.0, "a dog", 1)]
)
def test_both_passes_of_guidance_share_one_forward(model, scale, negative, passes):
    ids, hidden = clips(3, 2)
    seen = []
    handle = model.stpt.register_forward_hook(lambda module, given, output: seen.append((given, output)))
    sampler = SamplerConfig(num_decode_steps=4)
    guidance = GuidanceConfig(scale=scale)
    model.complete(ids, hidden, ["a dog"] * 3, negative_prompt=negative, sampler=sampler, guidance=guidance)
    handle.remove()
    assert len(seen) == 4
    for given, _ in seen:
        assert len(given[0]) == 3 * passes
        assert torch.equal(given[0][:3], given[0][-3:])
    alone = logits_of(model, ids, hidden, [negative if passes == 2 else "a dog"] * 3)
    torch.testing.assert_close(seen[0][1][-3:], alone, rtol=0, atol=1e-4)


def test_the_sampler_is_given_guided_logits(model):
    ids, hidden = clips(1, 2)
    conditional, unconditional = (logits_of(model, ids, hidden, [text]) for text in ("a red dog", "fog"))
    wanted = guided(conditional, unconditional, 50.0).argmax(-1)
    assert not torch.equal(wanted[hidden], conditional.argmax(-1)[hidden])
    drawn = model.complete(
        ids,
        hidden,
        ["a red dog"],
        negative_prompt="fog",
        sampler=SamplerConfig(num_decode_steps=1, temperature=0),
        guidance=GuidanceConfig(scale=50.0),
    ).token_ids_BS.view(1, 2, S)
    assert torch.equal(drawn, torch.where(hidden, wanted, ids))


# ----------------------------------------------------------------------------------------------- isolation


def test_images_are_the_same_alone_and_together(model):
    ids, hidden = clips(5, 1)
    texts = ["", "a dog", "fog over a river", "a", "b c"]
    together = logits_of(model, ids, hidden, texts)
    for row in range(5):
        alone = logits_of(model, ids[row : row + 1], hidden[:1], texts[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 4])
def test_one_clip_never_changes_another(model, frames):
    ids, hidden = clips(3, frames)
    other_ids = ids.clone()
    other_ids[1] = clips(1, frames, seed=1)[0]
    one, other = (logits_of(model, tokens, hidden, ["a dog"] * 3) for tokens in (ids, other_ids))
    assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert not torch.equal(one[1], other[1])


def test_the_frames_of_a_clip_see_each_other_in_both_directions(model):
    ids, hidden = clips(1, 4)
    for changed, looking in ((0, 3), (3, 0)):
        other_ids = ids.clone()
        other_ids[:, changed] = (ids[:, changed] + 1) % K
        one, other = (logits_of(model, tokens, hidden, [""])[:, looking] for tokens in (ids, other_ids))
        assert not torch.equal(one, other)


def test_hidden_tokens_are_not_read(model):
    ids, hidden = clips(1, 4)
    other_ids = torch.where(hidden, (ids + 7) % K, ids)
    assert torch.equal(*(logits_of(model, tokens, hidden, [""]) for tokens in (ids, other_ids)))


def changed_by_token_0(images):
    """Return which tokens of an image attention over frames changes when token 0 changes."""
    torch.manual_seed(0)
    attention = PatchAttention(32, 2, grid=GRID, stride=2)
    torch.nn.init.normal_(attention.out.weight, std=0.1)
    x = torch.randn(1, 1, S, 32)
    other = x.clone()
    other[0, 0, 0] += 1
    with torch.no_grad():
        one, two = (attention.over_clip(value, images=images) for value in (x, other))
    return (one != two).any(-1)[0, 0].view(GRID)


def test_with_identity_a_token_of_an_image_attends_to_itself_only():
    changed = changed_by_token_0(ImageAttention.IDENTITY)
    assert changed[0, 0]
    assert changed.sum() == 1


def test_with_block_diagonal_it_attends_to_its_patch():
    changed = changed_by_token_0(ImageAttention.BLOCK_DIAGONAL)
    assert changed[:2, :3].all()
    assert changed.sum() == 6


def test_identity_is_for_images_only():
    block, identity = (
        small_video_model(),
        small_video_model(stpt={"image_attention": ImageAttention.IDENTITY}),
    )
    assert all(map(torch.equal, block.state_dict().values(), identity.state_dict().values()))
    for frames, is_same in ((1, False), (3, True)):
        one, other = (logits_of(model, *clips(2, frames), ["a", "b"]) for model in (block, identity))
        assert torch.equal(one, other) is is_same


# ------------------------------------------------------------------------------------- prompts and actions


@pytest.mark.parametrize("frames", [1, 4])
def test_the_text_matters(model, frames):
    ids, hidden = clips(1, frames)
    logits = [logits_of(model, ids, hidden, [text]) for text in ("", "a red dog", "a dog red")]
    for one, other in itertools.combinations(logits, 2):
        assert (one - other).abs().max() > 1e-4


def test_actions_matter_and_nan_is_none(acting_model):
    ids, hidden = clips(2, 4)
    twist = torch.tensor([5.0, 0.1]).expand(2, 4, 2)
    faster = twist.clone()
    faster[1, 2, 0] = 9.0
    nothing = torch.full((2, 4, 2), torch.nan)
    texts = ["a road", "a road"]
    none, driven, sped_up, unknown = (
        logits_of(acting_model, ids, hidden, texts, actions) for actions in (None, twist, faster, nothing)
    )
    assert torch.equal(none, unknown)
    assert (none - driven).abs().max() > 1e-4
    assert torch.equal(driven[0], sped_up[0])
    assert (driven[1] - sped_up[1]).abs().max() > 1e-5


def test_actions_can_be_guided(acting_model):
    ids, hidden = clips(1, 3)
    sampler, guidance = SamplerConfig(temperature=0), GuidanceConfig(scale=20.0)
    drawn = [
        acting_model.complete(
            ids, hidden, [""], twist_BTA=twist, sampler=sampler, guidance=guidance
        ).token_ids_BS
        for twist in (torch.tensor([s, 0.3]).expand(1, 3, 2) for s in (0.0, 15.0))
    ]
    assert not torch.equal(*drawn)


def test_a_model_without_actions_refuses_them(model):
    ids, hidden = clips(1, 2)
    assert logits_of(model, ids, hidden, [""], torch.full((1, 2, 2), torch.nan)).isfinite().all()
    with pytest.raises(InputError, match="read no actions"):
        logits_of(model, ids, hidden, [""], torch.zeros(1, 2, 2))


def test_it_runs_in_bfloat16(acting_model):
    small = VideoModel(acting_model.config).eval()
    small.load_state_dict(acting_model.state_dict())
    small.bfloat16()
    ids, hidden = clips(1, 3)
    assert logits_of(small, ids, hidden, ["a dog"], torch.ones(1, 3, 2)).isfinite().all()
    drawn = small.complete(ids, hidden, ["a dog"], generator=generator())
    assert torch.equal(drawn.token_ids_BS.view(1, 3, S)[~hidden], ids[~hidden])
    assert small.decode(ids).shape == (1, 3, 3, 64, 96)


@pytest.mark.parametrize(
    "bad",
    [{"num_frames": 0}, {"num_action_tokens": -1}, {"rate_hz": float("nan")}],
)
def test_models_that_cannot_be_built_are_refused(bad):
    with pytest.raises(ValueError, match="needs num_frames"):
        VideoModelConfig(**bad)


# ------------------------------------------------------------------------------------------- training masks


def only(kind):
    return ClipMaskConfig(**{name: float(name == kind) for name in SHARES})


@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("kind", [*SHARES, "all"])
def test_clip_masks_always_hide_something_and_follow_the_seed(kind, frames):
    config = ClipMaskConfig() if kind == "all" else only(kind)
    masks = draw_clip_mask(config, 500, frames, GRID, generator())
    assert (masks.shape, masks.dtype) == ((500, frames, S), torch.bool)
    assert masks.flatten(1).any(-1).all()
    assert torch.equal(masks, draw_clip_mask(config, 500, frames, GRID, generator()))
    assert not torch.equal(masks, draw_clip_mask(config, 500, frames, GRID, generator(1)))


def test_clip_masks_are_of_their_kind():
    tube, scattered, prefix, box = (draw_clip_mask(only(kind), 300, 6, GRID, generator()) for kind in SHARES)
    assert torch.equal(tube, tube[:, :1].expand_as(tube))
    assert (scattered != scattered[:, :1]).any()
    is_prefix = ~prefix[:, 0].any(-1)  # else nothing was hidden, and scattered tokens stand in
    assert is_prefix.float().mean() > 0.95
    assert not prefix[is_prefix, 0].any()
    is_hidden = box.any(1).view(-1, *GRID)
    rows, columns = is_hidden.any(2).sum(1), is_hidden.any(1).sum(1)
    assert ((rows <= 3) & (columns <= 5)).float().mean() > 0.95


@pytest.mark.parametrize("bad", [{"tube": 0.5}, {"tube": -0.15, "box": 0.5}, {"tube": float("nan")}])
def test_shares_that_do_not_add_up_are_refused(bad):
    with pytest.raises(ValueError, match="shares of clip masks"):
        ClipMaskConfig(**bad)


# ---------------------------------------------------------------------------------------------------- int8


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_module(model, path, kind="video-model", config=model.config, dtype=torch.int8)
    return path


def test_int8_weights_come_back_within_half_a_step(model, stored):
    tensors = load_file(stored)
    scaled = [name.removesuffix("@scale") for name in tensors if name.endswith("@scale")]
    assert scaled
    assert all(tensors[name].dtype is torch.int8 for name in scaled)
    again = VideoModel(small_video_config())
    load_state(again, read_checkpoint(stored, kind="video-model"))
    for name, value in model.state_dict().items():
        error = (again.state_dict()[name].float() - value.float()).abs().flatten(1 if name in scaled else 0)
        step = tensors[f"{name}@scale"].unsqueeze(1) if name in scaled else 2e-3 * value.abs().max()
        assert (error <= 0.51 * step).all(), name


def test_int8_weights_compute_nearly_the_same(model, stored):
    again = load_video_model(stored, dtype=torch.float32)
    assert again.config == model.config
    ids, hidden = clips(2, 4)
    one, other = (logits_of(m, ids, hidden, ["a dog", ""]) for m in (model, again))
    assert (one - other).std() < 0.05 * one.std()


def test_a_flipped_bit_of_int8_weights_is_noticed(stored, tmp_path):
    data = bytearray(stored.read_bytes())
    data[-5] ^= 1
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        load_video_model(broken)
