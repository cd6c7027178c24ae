"""STPT: causality, the cache, patches, prompts, and what the two modes see."""

import pytest
import torch
from small_models import GRID, small_world_model

from drivesim.world_model.attention import attention, from_patches, rotary_angles, rotate, to_patches, turned
from drivesim.world_model.stpt import STPTConfig, next_moment

S = GRID[0] * GRID[1]


def inputs(model, batch=2, frames=7):
    generator = torch.Generator().manual_seed(1)
    codebook = model.tokenizer.codebook_size
    ids = torch.randint(codebook, (batch, frames, S), generator=generator)
    is_masked = torch.rand(batch, frames, S, generator=generator) < 0.6
    guide = torch.rand(batch, frames, S, model.stpt.config.guide_dim, generator=generator)
    prompt = model.action_encoder(torch.rand(batch, frames, 2, generator=generator))
    return ids, is_masked, guide, prompt


@pytest.fixture
def causal():
    return small_world_model()


@pytest.fixture
def full():
    return small_world_model(is_frame_causal=False)


def test_patches_are_quadrants_and_come_back(rng):
    x = torch.arange(S).reshape(1, S, 1)
    patches = to_patches(x, GRID, 2)
    assert patches.shape == (1, 4, S // 4, 1)
    assert patches[0, 0, :7, 0].tolist() == list(range(7))
    assert patches[0, 1, 0, 0] == 7
    assert torch.equal(from_patches(patches, GRID, 2), x)
    with pytest.raises(ValueError, match="patch_stride"):
        to_patches(x, GRID, 3)


def test_rotary_positions_are_relative():
    q, k = torch.randn(1, 16), torch.randn(1, 16)

    def score(a, b):
        angles = rotary_angles(torch.tensor([a, b]), 16)
        return float(rotate(q, angles[0]) @ rotate(k, angles[1]).T)

    assert score(3, 1) == pytest.approx(score(1003, 1001), abs=1e-3)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_and_keys_are_normalised_and_turned_at_one_go(causal, dtype):
    part = causal.stpt.layers[0].attention
    for scale in (part.query_scale_D, part.key_scale_D):
        torch.nn.init.uniform_(scale, 0.5, 2.0)
    part = part.to(dtype)
    x, times = torch.randn(3, S, causal.stpt.config.dim).to(dtype), torch.tensor([0, 4, 900])
    turn = part.turn(times)
    q, k, v = part.project_at(x, turn)
    plain_q, plain_k, plain_v = part.project(x)
    close = {"atol": 0.05, "rtol": 0.02} if dtype is torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    assert torch.equal(v, plain_v)
    assert q.dtype == k.dtype == dtype
    torch.testing.assert_close(q, turned(plain_q, turn), **close)
    torch.testing.assert_close(k, turned(plain_k, turn), **close)
    angles = rotary_angles(times, part.head_dim).view(3, 1, 1, 1, -1)
    torch.testing.assert_close(turned(plain_q, turn), rotate(plain_q, angles))
    (q.float().square().sum() + k.float().sum()).backward()
    assert part.query_scale_D.grad.abs().sum() > 0
    assert part.key_scale_D.grad.abs().sum() > 0


def test_frames_that_do_not_exist_are_masked_and_full_windows_need_no_mask(causal):
    ids, _, guide, prompt = inputs(causal, batch=2, frames=9)
    memory = causal.stpt.empty_memory(2, ids.device, torch.float32)
    visible = torch.zeros_like(ids[:, 0], dtype=torch.bool)
    num_past = causal.stpt.config.window - 1
    for t in range(9):
        moment = next_moment(causal.stpt.layers, memory, 2)
        assert (moment.attn_mask is None) == (t >= num_past)
        if moment.attn_mask is not None:
            frames = moment.attn_mask.view(2, 2, num_past + 1, -1).float().mean(-1)
            assert frames.sum(-1).tolist() == [[t + 1.0] * 2, [min(t + 2.0, num_past + 1)] * 2]
        _, memory = causal.stpt.frame(ids[:, t], visible, prompt[:, t], memory, guide_BSG=guide[:, t])
    mixed = [layer.rows(torch.tensor([0, 1])) for layer in memory]
    mixed[0].num_frames_F = torch.tensor([9, 1])
    assert next_moment(causal.stpt.layers, mixed, 1).attn_mask[0].all()
    assert not next_moment(causal.stpt.layers, mixed, 1).attn_mask[1].all()


def test_written_out_attention_equals_the_fused_kernel():
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    mask = torch.rand(2, 1, 1, 9) < 0.7
    mask[..., 0] = True
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(attention(q, k, v, mask), fused)


@torch.no_grad()
def test_cached_frames_equal_the_uncached_two_streams(causal):
    ids, is_masked, guide, prompt = inputs(causal, frames=9)
    whole = causal.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)
    memory = causal.stpt.empty_memory(2, torch.device("cpu"), torch.float32)
    for t in range(9):
        one, _ = causal.stpt.frame(ids[:, t], is_masked[:, t], prompt[:, t], memory, guide_BSG=guide[:, t])
        torch.testing.assert_close(one, whole[:, t], atol=1e-4, rtol=1e-4)
        visible = torch.zeros_like(is_masked[:, t])
        _, memory = causal.stpt.frame(ids[:, t], visible, prompt[:, t], memory, guide_BSG=guide[:, t])


@torch.no_grad()
def test_one_pass_over_two_frames_equals_two_passes(causal):
    ids, _, guide, prompt = inputs(causal, frames=8)
    memory = causal.stpt.empty_memory(2, torch.device("cpu"), torch.float32)
    visible = torch.zeros(2, S, dtype=torch.bool)
    for t in range(7):
        pair = slice(t, t + 2)
        arguments = (prompt[:, pair].transpose(0, 1), guide[:, pair].transpose(0, 1), memory)
        fused, fused_memory = causal.stpt.hidden_frame(ids[:, t], *arguments)
        _, memory = causal.stpt.frame(ids[:, t], visible, prompt[:, t], memory, guide_BSG=guide[:, t])
        alone, _ = causal.stpt.frame(
            ids[:, t + 1], ~visible, prompt[:, t + 1], memory, guide_BSG=guide[:, t + 1]
        )
        torch.testing.assert_close(fused, alone, atol=1e-4, rtol=1e-4)
        for ours, theirs in zip(fused_memory, memory, strict=True):
            torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-4, rtol=1e-4)
            assert torch.equal(ours.num_frames_F, theirs.num_frames_F)


@torch.no_grad()
def test_frame_causal_never_looks_ahead_and_does_look_back(causal):
    ids, is_masked, guide, prompt = inputs(causal)
    before = causal.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % causal.tokenizer.codebook_size
    after = causal.stpt.hidden_stream(changed, ids, is_masked, prompt, guide_BTSG=guide)
    assert torch.equal(
        before[:, :5], after[:, :5]
    )  # the hidden stream of frame 4 reads its clean self nowhere
    assert not torch.allclose(before[:, 5], after[:, 5])
    reach = 2 * (causal.stpt.config.window - 1)
    assert reach >= 2


@torch.no_grad()
def test_masked_ids_are_not_read(causal):
    ids, is_masked, guide, prompt = inputs(causal)
    other = torch.where(is_masked, (ids + 1) % causal.tokenizer.codebook_size, ids)
    a = causal.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)
    b = causal.stpt.hidden_stream(ids, other, is_masked, prompt, guide_BTSG=guide)
    assert torch.equal(a, b)


@torch.no_grad()
def test_full_mode_sees_both_directions(full):
    ids, is_masked, guide, prompt = inputs(full)
    before = full.stpt(ids, is_masked, prompt, guide_BTSG=guide)
    assert before.shape == (2, 7, S, full.tokenizer.codebook_size)
    changed, none = ids.clone(), is_masked.clone()
    none[:, 3] = False
    before = full.stpt(ids, none, prompt, guide_BTSG=guide)
    changed[:, 3] = (changed[:, 3] + 1) % full.tokenizer.codebook_size
    after = full.stpt(changed, none, prompt, guide_BTSG=guide)
    for t in (2, 4):
        assert not torch.allclose(before[:, t], after[:, t])


@torch.no_grad()
def test_a_frame_reads_its_own_prompt_only(full):
    full.stpt.layers = full.stpt.layers[:1]  # one layer: no path through time after the prompt is read
    ids, is_masked, guide, prompt = inputs(full)
    before = full.stpt(ids, is_masked, prompt, guide_BTSG=guide)
    changed = prompt.clone()
    changed[:, 2] += 1
    after = full.stpt(ids, is_masked, changed, guide_BTSG=guide)
    moved = (before - after).abs().amax((0, 2, 3))
    assert moved[2] > 0
    assert moved[[0, 1, 3, 4, 5, 6]].max() == 0


@torch.no_grad()
def test_attention_stays_inside_its_patch(full):
    attention_part = full.stpt.layers[0].attention
    x = torch.randn(1, 5, S, 32)
    before = attention_part.over_clip(x)
    changed = x.clone()
    changed[:, 2, 0] += 1  # upper left quadrant
    moved = (attention_part.over_clip(changed) - before).abs().amax((0, 1, 3)).reshape(GRID)
    assert moved[:4, :7].min() > 0
    assert moved[4:].max() == 0
    assert moved[:, 7:].max() == 0


@torch.no_grad()
def test_absent_prompt_tokens_do_not_matter(full):
    ids, is_masked, guide, prompt = inputs(full)
    is_given = torch.tensor([True, False]).expand(2, 7, 2)
    changed = prompt.clone()
    changed[:, :, 1] += 5
    a = full.stpt(ids, is_masked, prompt, guide_BTSG=guide, is_given_BTL=is_given)
    b = full.stpt(ids, is_masked, changed, guide_BTSG=guide, is_given_BTL=is_given)
    assert torch.equal(a, b)


def test_the_wrong_mode_is_refused(causal, full):
    ids, is_masked, guide, prompt = inputs(causal)
    with pytest.raises(ValueError, match="is_frame_causal=false"):
        causal.stpt(ids, is_masked, prompt, guide_BTSG=guide)
    with pytest.raises(ValueError, match="is_frame_causal=true"):
        full.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="window"):
        STPTConfig(window=1)
    with pytest.raises(ValueError, match="num_heads"):
        STPTConfig(dim=30, num_heads=4)


def test_state_dict_and_to_carry_every_tensor(causal):
    again = small_world_model()
    again.load_state_dict(causal.state_dict())
    ids, is_masked, guide, prompt = inputs(causal)
    a = causal.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)
    b = again.stpt.hidden_stream(ids, ids, is_masked, prompt, guide_BTSG=guide)
    assert torch.equal(a, b)
    tensors = [*again.to("meta").parameters(), *again.buffers()]
    assert all(tensor.device.type == "meta" for tensor in tensors)
