"""Training as inpainting sees a clip: holes, and the tokens around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import CAUSAL, small_video_model

from drivesim.tokenizer.vqgan import normalized
from drivesim.training.captioned_set import CaptionedItem, write_set
from drivesim.training.captioned_tokens import open_or_tokenize
from drivesim.training.holes import MAX_SIDE, MIN_SIDE, draw_rectangles, holed_rows, seen_around_holes
from drivesim.training.video_model import VideoModelModule, VideoModelTask, VideoTrainingConfig
from drivesim.video import drawn_across
from drivesim.world_model.long_clips import mask_of_tokens
from drivesim.world_model.masking import draw_hole_mask

FRAMES, HEIGHT_PX, WIDTH_PX, GRID = 4, 64, 96, (4, 6)
BOX = [0.6, 0.1, 0.8, 0.3]


@pytest.fixture(scope="module")
def model():
    return small_video_model(stpt=CAUSAL)


@pytest.fixture(scope="module")
def tokens(model, tmp_path_factory):
    """Return tokens of clips and images of noise, in all of which a thing is said to be at one place."""
    rng = np.random.default_rng(0)

    def item(num_frames):
        frames = rng.integers(0, 256, (num_frames, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8)
        boxes = np.full((num_frames, 2, 4), np.nan, dtype=np.float32)
        boxes[:, 0] = BOX
        return CaptionedItem(frames=frames, captions=["a thing"], frame_captions=["a thing"], boxes=boxes)

    content = write_set(
        tmp_path_factory.mktemp("noise") / "train",
        [item(length) for length in [FRAMES] * 4 + [1] * 4],
        num_clips=4,
        num_images=4,
        clip_shape=(FRAMES, HEIGHT_PX, WIDTH_PX),
        facts={},
    )
    return open_or_tokenize(content, model.tokenizer)


def first_batch(tokens, model, *, step=0, rank=0, world_size=1, **settings):
    config = VideoTrainingConfig(frames_per_window=3, prompt_drop=0.0, **settings)
    task = VideoModelTask(config, tokens, tokens, model)
    size = 8 // world_size
    return next(task.batches(start_step=step, batch_size=size, seed=0, rank=rank, world_size=world_size))


def uniform(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.rand(tuple(shape), generator=generator)


def test_rectangles_lie_over_boxes_or_anywhere():
    about = torch.tensor([BOX]).repeat(400, 1)
    about[200:] = torch.nan
    masks = draw_rectangles(about, (HEIGHT_PX, WIDTH_PX), uniform())
    assert (masks.shape, masks.dtype) == ((400, HEIGHT_PX, WIDTH_PX), np.dtype(bool))
    middle = masks[:, int(0.2 * HEIGHT_PX), int(0.7 * WIDTH_PX)]
    assert middle[:200].all()
    assert 0.05 < middle[200:].mean() < 0.5
    for axis, size in ((2, HEIGHT_PX), (1, WIDTH_PX)):
        sides = masks.any(axis).sum(-1) / size
        assert sides.min() >= MIN_SIDE - 1 / size
        assert sides.max() <= MAX_SIDE + 1 / size
        assert sides.std() > 0.1
    areas = masks.any(2).sum(-1) * masks.any(1).sum(-1)
    np.testing.assert_array_equal(masks.sum((1, 2)), areas)  # rectangles


def test_of_a_hole_all_or_scattered_tokens_are_hidden():
    hole = torch.zeros(300, 24, dtype=torch.bool)
    hole[:, 5:13] = True
    hole[0, 6:13] = False
    hidden = draw_hole_mask(hole, 3, uniform(), whole_share=0.8)
    assert not (hidden & ~hole.unsqueeze(1)).any()
    assert hidden.any(-1).all()
    is_whole = (hidden == hole.unsqueeze(1)).all(-1).float().mean(0)
    assert 0.5 < is_whole[0] < 0.75
    assert (is_whole[1:] > 0.8).all()


@pytest.mark.parametrize("image_share", [0.0, 0.9])
def test_what_is_seen_around_a_hole_are_tokens_of_the_filled_frame(tokens, model, image_share):
    settings = {"image_share": image_share, "context_noise": 0.0}
    batch = first_batch(tokens, model, step=1, hole_share=1.0, **settings)
    hole = batch["hole_tokens"]
    assert len(batch["holed_rows"]) == len(batch["token_ids"])
    assert not (batch["is_masked"] & ~hole.unsqueeze(1)).any()
    seen = seen_around_holes(batch, model.tokenizer)
    filled = model.tokenizer.encode(normalized(batch["holed_frames"].flatten(0, 1)))
    filled = filled.view(batch["token_ids"].shape)
    inside = hole.unsqueeze(1).expand_as(filled)
    ids = seen["token_ids"].long()
    assert torch.equal(ids[~inside], filled[~inside])
    assert torch.equal(ids[inside], batch["token_ids"].long()[inside])
    assert not torch.equal(seen["token_ids"], batch["token_ids"])
    if not image_share:
        assert torch.equal(seen["context_ids"], seen["token_ids"])
    assert not {"holed_rows", "holed_frames", "hole_tokens"} & set(seen)


def test_rows_without_a_hole_and_noise_stay():
    model = small_video_model()
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (2, HEIGHT_PX, WIDTH_PX, 3), dtype=np.uint8) for _ in range(2)]
    rectangles = np.zeros((2, HEIGHT_PX, WIDTH_PX), dtype=bool)
    rectangles[:, 16:48, 16:48] = True
    true = torch.stack([model.tokenizer.encode(normalized(torch.from_numpy(part))) for part in frames]).int()
    context = true.clone()
    context[:, :, 0] = (context[:, :, 0] + 1) % 48
    batch = {"token_ids": true, "context_ids": context, "is_masked": torch.ones_like(true, dtype=torch.bool)}
    hole = mask_of_tokens(rectangles, GRID)
    batch |= holed_rows(frames, rectangles, hole, torch.tensor([False, True]))
    mask = np.broadcast_to(rectangles[0], (2, HEIGHT_PX, WIDTH_PX))
    np.testing.assert_array_equal(batch["holed_frames"][0], drawn_across(frames[1], mask))
    assert torch.equal(batch["hole_tokens"], mask_of_tokens(mask[:1], GRID))
    seen = seen_around_holes(batch, model.tokenizer)
    for name in ("token_ids", "context_ids"):
        assert torch.equal(seen[name][0], batch[name][0])
    assert torch.equal(seen["context_ids"][1, :, 0], context[1, :, 0])
    assert torch.equal(seen["context_ids"][..., 1:], seen["token_ids"][..., 1:])
    assert torch.equal(batch["context_ids"], context)


def test_holes_are_as_frequent_as_asked_and_mostly_about_things(tokens, model):
    batch = first_batch(tokens, model, step=1, image_share=0.9, hole_share=0.5)
    assert 0 < len(batch["holed_rows"]) < len(batch["token_ids"])
    assert "holed_rows" not in first_batch(tokens, model, image_share=0.0)
    holes = first_batch(tokens, model, step=1, image_share=0.9, hole_share=1.0)["hole_tokens"]
    # Columns and rows of tokens: the middle of the thing, and the corner that is farthest from it.
    at_thing, far = (
        holes.unflatten(1, GRID)[:, row, column].float().mean() for row, column in ((0, 4), (3, 0))
    )
    assert at_thing > far + 0.3


def test_the_past_of_a_hole_is_drawn_in_it_alone_and_whole(tokens, model):
    settings = {"image_share": 0.0, "drawn_share": 1.0}
    batch = first_batch(tokens, model, hole_share=1.0, **settings)
    is_drawn, hole = batch["is_drawn"], batch["hole_tokens"].unsqueeze(1).expand_as(batch["is_masked"])
    assert torch.equal(batch["drawing_hides"], hole)
    assert torch.equal(is_drawn[:, 1], hole[:, 1])
    assert not is_drawn[:, -1].any()
    first = is_drawn[:, 0].any(-1)
    assert 0 < first.sum() < len(first)
    assert torch.equal(is_drawn[first, 0], hole[first, 0])
    bare = first_batch(tokens, model, **settings)
    assert bare["drawing_hides"].all()
    assert not bare["is_drawn"][:, 0].any()


def test_a_past_can_be_drawn_after_a_past_that_is_drawn(tokens, model):
    batch = first_batch(tokens, model, image_share=0.0, hole_share=1.0, drawn_share=1.0, context_noise=0.0)
    passes = []
    hook = model.register_forward_pre_hook(lambda *call: passes.append(call[1:]), with_kwargs=True)
    VideoModelModule(model, num_drawings=2)(batch)
    hook.remove()
    first_ids, second_ids = (passes[index][1]["past_ids_BTS"] for index in (0, 1))
    (shown_ids, second_hides, _), _ = passes[1]
    rows = batch["is_drawn"].flatten(1).any(-1)
    is_drawn = batch["is_drawn"][rows, :-1]
    assert len(passes) == 3
    assert torch.equal(second_hides, batch["drawing_hides"][rows, :-1])
    assert torch.equal(shown_ids, seen_around_holes(batch, model.tokenizer)["token_ids"][rows, :-1].long())
    assert torch.equal(second_ids[~is_drawn], first_ids[~is_drawn])
    assert (second_ids != first_ids)[is_drawn].float().mean() > 0.5
    past = passes[2][1]["past_ids_BTS"][rows, :-1]
    assert torch.equal(past[~is_drawn], first_ids[~is_drawn])
    with pytest.raises(ValueError, match="num_drawings"):
        VideoTrainingConfig(num_drawings=0)


def test_a_model_is_trained_on_clips_with_holes(tokens, model):
    batch = first_batch(tokens, model, image_share=0.0, hole_share=1.0, drawn_share=1.0)
    module = VideoModelModule(model.requires_grad_(True))
    terms = module(batch)
    terms["loss"].backward()
    assert torch.isfinite(terms["loss"])
    assert all(parameter.grad is not None for parameter in model.stpt.layers.parameters())
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())
    as_before = {name: value for name, value in batch.items() if not name.startswith("hole")}
    assert not torch.equal(terms["loss"], module(as_before)["loss"])  # what is seen matters


def test_holes_depend_on_the_row_alone(tokens, model):
    settings = {"image_share": 0.0, "hole_share": 1.0, "whole_share": 0.5}
    both = first_batch(tokens, model, **settings)
    parts = [first_batch(tokens, model, rank=rank, world_size=2, **settings) for rank in (0, 1)]
    for name in ("is_masked", "hole_tokens", "holed_frames"):
        assert torch.equal(both[name], torch.cat([part[name] for part in parts])), name


def test_the_tokenizer_is_not_trained(model):
    module = VideoModelModule(model).train()
    assert not any(part.training for part in model.tokenizer.modules())
    assert model.stpt.training
    module.eval()


def test_a_share_of_holes_is_a_share():
    with pytest.raises(ValueError, match="hole_share"):
        VideoTrainingConfig(hole_share=1.5)
