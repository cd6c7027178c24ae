"""The paper's own preset: its size, a forward pass and a training step in reduced depth, and its two stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_t5 import DIM, write_small_t5

from drivesim.config import load_config
from drivesim.generate import GenerateConfig, text_to_video
from drivesim.presets import model_summaries
from drivesim.training.captioned_makers import GeneralDataConfig, open_or_make
from drivesim.training.video_model import VideoModelModule
from drivesim.world_model.attention import ImageAttention
from drivesim.world_model.masking import draw_clip_mask
from drivesim.world_model.prompts import PromptKind
from drivesim.world_model.video_model import VideoModel

FRAMES = 2
NARROW_TOKENIZER = {"channels": [8, 8, 16], "num_res_blocks": [1, 1, 1]}


@pytest.fixture(scope="module")
def stages():
    return [load_config("train", [f"experiment=paper_stage{stage}"]) for stage in (1, 2)]


def test_sizes_are_the_papers(stages):
    first, second = stages
    assert (first.training.num_train_steps, first.training.batch_size * first.training.devices) == (
        2_000_000,
        64,
    )
    assert (second.training.num_train_steps, second.training.batch_size * second.training.devices) == (
        20_000,
        32,
    )
    assert (first.video_model.model.num_frames, second.video_model.model.num_frames) == (16, 24)
    for stage, size in ((first, (256, 256)), (second, (192, 320))):
        model = stage.video_model.model
        assert (model.vqgan.height_px, model.vqgan.width_px) == size
        assert (stage.general.height_px, stage.general.width_px) == size
        assert stage.general.frames_per_clip == model.num_frames
        assert replace(stage.tokenizer.vqgan, fsq_levels=model.vqgan.fsq_levels) == model.vqgan
        assert model.prompt is PromptKind.T5
        assert stage.video_model.prompt_drop == 0.1
        assert stage.video_model.init == ""
        assert stage.captions.detect_cuts
        assert stage.video_model.masks.tube == 1.0
        assert model.stpt.image_attention is ImageAttention.IDENTITY
        flags = ("is_frame_causal", "has_frame_attention", "has_frame_places")
        assert not any(getattr(model.stpt, name) for name in flags)
        assert (model.stpt.patch_stride, model.num_action_tokens, model.sampler.num_decode_steps) == (
            2,
            1,
            10,
        )


def test_it_has_a_billion_parameters():
    paper = next(summary for summary in model_summaries() if summary.name == "paper")
    assert 0.9e9 < paper.num_parameters < 1.1e9
    assert (paper.tokens_per_frame, paper.codes) == (240, 8192)


@pytest.fixture(scope="module")
def shallow(stages):
    """The preset with one layer and a narrow tokenizer, which takes no part here."""
    config = stages[1].video_model.model
    vqgan = replace(config.vqgan, **NARROW_TOKENIZER)
    torch.manual_seed(0)
    return VideoModel(replace(config, stpt=replace(config.stpt, num_layers=1), vqgan=vqgan))


def test_a_training_step_in_reduced_depth(shallow, stages):
    module = VideoModelModule(shallow, label_smoothing=0.0)
    generator = torch.Generator().manual_seed(0)
    masks = draw_clip_mask(stages[1].video_model.masks, 1, FRAMES, (12, 20), generator)
    assert torch.equal(masks[:, 0], masks[:, 1])
    batch = {
        "token_ids": torch.randint(8192, (1, FRAMES, 240), generator=generator),
        "is_masked": masks,
        "twist": torch.tensor([[[8.0, 0.1], [8.0, 0.1]]]),
        "tokens": torch.randn(1, 5, 768, generator=generator),
        "is_given": torch.ones(1, 5, dtype=torch.bool),
    }
    optimizer = torch.optim.AdamW(
        [parameter for parameter in module.parameters() if parameter.requires_grad], lr=1e-3
    )
    losses = []
    for _ in range(2):
        loss = module(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert losses[0] == pytest.approx(torch.log(torch.tensor(8192.0)).item(), abs=1.0)


def test_24_frames_are_generated_in_one_call(stages, tmp_path):
    """All frames at once, under a text that a T5 reads; shallow, narrow and in two rounds, but of the paper's size."""
    config = stages[1].video_model.model
    vqgan = replace(config.vqgan, **NARROW_TOKENIZER)
    stpt = replace(config.stpt, num_layers=1, dim=64, num_heads=2, conv_dim=16)
    t5 = str(write_small_t5(tmp_path))
    torch.manual_seed(0)
    model = VideoModel(replace(config, stpt=stpt, vqgan=vqgan, t5=t5, t5_dim=DIM)).eval()
    told = []
    request = GenerateConfig(sampler=replace(config.sampler, num_decode_steps=2), on_round=told.append)
    result = text_to_video(model, "a car stops", request)
    assert (result.frames.shape, result.frames.dtype) == ((1, 24, 192, 320, 3), np.uint8)
    assert result.token_ids.shape == (1, 24, 240)
    assert result.rate_hz == 12.0
    assert told == [1, 2]


@torch.no_grad()
def test_an_image_passes_time_attention_as_it_is(shallow):
    """Each token of an image attends to itself only: what one token sees does not depend on another's."""
    attention = shallow.stpt.layers[0].attention
    torch.nn.init.normal_(attention.out.weight, std=0.02)
    x_BTSC = torch.randn(1, 1, 240, attention.num_heads * attention.head_dim)
    changed = x_BTSC.clone()
    changed[:, :, 7] += 1
    before, after = (attention.over_clip(x, images=ImageAttention.IDENTITY) for x in (x_BTSC, changed))
    is_changed_S = (before != after).any(-1).squeeze()
    assert is_changed_S.nonzero().flatten().tolist() == [7]
    both = attention.over_clip(changed, images=ImageAttention.BLOCK_DIAGONAL)
    assert not torch.allclose(both, after)


def test_drives_are_recorded_in_the_papers_size(tmp_path):
    config = GeneralDataConfig(
        path=str(tmp_path),
        num_clips=1,
        num_images=1,
        num_drives=1,
        num_validation_clips=1,
        num_validation_images=1,
        frames_per_clip=2,
        height_px=192,
        width_px=320,
        num_workers=1,
    )
    train, _ = open_or_make(config)
    assert train.clips.shape == (3, 2, 192, 320, 3)
    assert train.clips[0].std() > 10
