"""Training on imagined frames: what learns, what the terms are, and that a killed run goes on bit for bit."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import small_world_model

from drivesim.errors import InputError
from drivesim.scene.road_map import PACKED_DIM, UNKNOWN
from drivesim.scene.types import front_camera
from drivesim.tokenizer.vqgan import normalized
from drivesim.training import fading
from drivesim.training.data import RecordedClips
from drivesim.training.fading import faded
from drivesim.training.imagination import ImaginationTask, ImaginationTrainingConfig
from drivesim.training.loop import TrainingConfig, fit
from drivesim.training.row_draws import RowDraws
from drivesim.training.running_rollouts import RolloutConfig
from drivesim.world_model.conditioning import picture_look
from drivesim.world_model.sampler import SamplerConfig, UnmaskOrder

BATCH = 2


def clips(rng: np.random.Generator) -> RecordedClips:
    """Two clips of noise that drives."""
    size = (2, 10)
    return RecordedClips(
        frames=rng.integers(0, 256, (*size, 128, 224, 3), dtype=np.uint8),
        twist=np.broadcast_to(np.float32([6.0, 0.1]), (*size, 2)).copy(),
        xy_m=np.zeros((*size, 2)),
        yaw_rad=np.zeros(size),
        is_collision=np.zeros(size, bool),
        is_off_road=np.zeros(size, bool),
        road=rng.integers(-128, 128, (*size, PACKED_DIM, 32, 56)).astype(np.int8),
        rate_hz=6.0,
        path=None,
    )


def make_task(**settings) -> ImaginationTask:
    torch.manual_seed(0)
    rollouts = RolloutConfig(num_groups=2, num_true_frames=2, frames_per_step=2, shortest=2, longest=6)
    config = ImaginationTrainingConfig(rollouts=rollouts, horizon=2, **settings)
    recorded = clips(np.random.default_rng(0))
    return ImaginationTask(config, recorded, recorded, small_world_model(), front_camera(), batch_size=BATCH)


def draw(task: ImaginationTask, count: int) -> list[dict[str, torch.Tensor]]:
    source = task.batches(start_step=0, batch_size=BATCH, seed=0, rank=0, world_size=1)
    return list(itertools.islice(source, count))


def test_transformer_and_decoder_learn_and_nothing_else():
    task = make_task()
    terms = task.losses(task.model, draw(task, 1)[0], RowDraws(0, []))
    terms["loss"].backward()
    model = task.model.world_model
    for part in (model.stpt, model.causal_decoder, model.action_encoder):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    frozen = (model.tokenizer, model.motion_field)
    assert all(p.grad is None for part in frozen for p in part.parameters())
    assert all(torch.isfinite(value) for value in terms.values())


def late_terms(task: ImaginationTask, view: list[float]) -> dict[str, torch.Tensor]:
    """Return the terms of a late step of rollouts in which the map shows the same everywhere, as it is packed."""
    for batch in draw(task, 20):
        batch["road"] = torch.tensor(view, dtype=torch.int8).view(PACKED_DIM, 1, 1).expand_as(batch["road"])
        terms = task.losses(task.model, batch, RowDraws(0, []))
        if int(batch["depth"]) >= 2:
            return terms
    raise AssertionError("no rollout is long")


@pytest.mark.parametrize("view", [[-127, 0, 0], [UNKNOWN, UNKNOWN, UNKNOWN], [127, UNKNOWN, 0]])
def test_late_in_a_rollout_the_decoder_is_judged_by_true_tokens_and_the_transformer_is_not(view):
    task = make_task(full_depth=1, look_weight=0.0, edge_weight=0.0)
    terms = late_terms(task, view)
    assert terms["loss"].item() == pytest.approx(terms["pictures"].item())
    terms["loss"].backward()
    model = task.model.world_model
    assert all(p.grad is None or not p.grad.any() for p in model.stpt.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.causal_decoder.parameters())
    assert all(p.grad is None for p in model.motion_field.parameters())


def test_a_known_road_is_judged_at_any_depth():
    task = make_task(full_depth=1, look_weight=0.0, edge_weight=0.0)
    terms = late_terms(task, [127, 0, 0])
    weight = task.config.token_weight
    assert terms["loss"].item() == pytest.approx((terms["pictures"] + weight * terms["tokens"]).item())
    terms["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in task.model.world_model.stpt.parameters())
    blind = late_terms(make_task(full_depth=1, road_trust=0.0, look_weight=0.0, edge_weight=0.0), [127, 0, 0])
    assert blind["loss"].item() == pytest.approx(blind["pictures"].item())


def test_agents_are_judged_at_any_depth_and_count_more():
    task = make_task(full_depth=1, look_weight=0.0, edge_weight=0.0)
    terms = late_terms(task, [UNKNOWN, UNKNOWN, 127])
    weight = task.config.token_weight * task.config.agent_factor
    assert weight > task.config.token_weight
    assert terms["loss"].item() == pytest.approx((terms["pictures"] + weight * terms["tokens"]).item())
    terms["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in task.model.world_model.stpt.parameters())


def test_look_and_edges_of_a_frame_are_judged_late_too():
    task = make_task(full_depth=1, road_trust=0.0)
    terms = late_terms(task, [UNKNOWN, UNKNOWN, UNKNOWN])
    config = task.config
    late = config.look_weight * terms["look"] + config.edge_weight * terms["edges"]
    assert terms["loss"].item() == pytest.approx((terms["pictures"] + late).item())
    terms["loss"].backward()
    assert any(p.grad is not None and p.grad.any() for p in task.model.world_model.stpt.parameters())


def test_a_picture_softer_or_harsher_than_its_tokens_teaches_the_causal_decoder():
    task = make_task(full_depth=1, road_trust=0.0, look_weight=0.0)
    with torch.no_grad():
        task.model.world_model.causal_decoder.out.weight.normal_(std=0.1)
    terms = late_terms(task, [UNKNOWN, UNKNOWN, UNKNOWN])
    assert terms["edges"] > 0
    others = terms["loss"] - terms["pictures"]
    assert others.item() == pytest.approx(task.config.edge_weight * terms["edges"].item(), rel=1e-4)


def test_edges_are_not_judged_where_the_recording_can_judge_every_pixel():
    task = make_task(full_depth=6)
    terms = late_terms(task, [UNKNOWN, UNKNOWN, UNKNOWN])
    config = task.config
    others = config.token_weight * terms["tokens"] + config.look_weight * terms["look"]
    assert terms["loss"].item() == pytest.approx((terms["pictures"] + others).item())


def test_a_faded_start_keeps_the_look_of_the_truth():
    task = make_task(faded_share=1.0)
    batch = draw(task, 1)[0]
    task.losses(task.model, batch, RowDraws(0, []))
    look = task.model.rollouts.read(int(batch["group"]), task.model.rays).look_BU
    torch.testing.assert_close(look, picture_look(normalized(batch["frames"][:, 0])))


def test_rollouts_that_do_not_fit_their_settings_are_refused():
    task = make_task()
    later = next(batch for batch in draw(task, 20) if int(batch["depth"]) > 0)
    with pytest.raises(InputError, match=r"resume with the imagination\.rollouts it began with"):
        task.losses(task.model, later, RowDraws(0, []))


def test_the_weights_keep_the_sampler_they_are_meant_for():
    torch.manual_seed(0)
    model = small_world_model()
    model.config = replace(model.config, sampler=SamplerConfig(num_decode_steps=3, order=UnmaskOrder.RANDOM))
    recorded = clips(np.random.default_rng(0))
    config = ImaginationTrainingConfig(horizon=2, temperature=0.6, noise_memory=0.7, temperature_rise=5)
    task = ImaginationTask(config, recorded, recorded, model, front_camera(), batch_size=BATCH)
    assert task.model.world_model.config.sampler == SamplerConfig(
        num_decode_steps=3,
        order=UnmaskOrder.RANDOM,
        temperature=0.6,
        temperature_rise=5,
        noise_memory=0.7,
    )


def test_a_rollout_goes_on_from_its_own_pictures():
    task = make_task()
    seen = {}
    for batch in draw(task, 6):
        group, depth = int(batch["group"]), int(batch["depth"])
        store = task.model.rollouts
        if depth:
            assert torch.equal(store.frames[group], seen[group])
        task.losses(task.model, batch, RowDraws(0, []))
        seen[group] = store.frames[group].clone()
        state = store.read(group, task.model.rays)
        assert (state.num_frames_B == 4 + depth).all()
        assert (state.memory[0].num_frames_F == 3 + depth).all()
    assert len(seen) == 2


def test_the_recording_is_trusted_less_and_less():
    config = ImaginationTrainingConfig(full_depth=8)
    assert [config.trust(depth) for depth in (0, 8, 12, 16, 60)] == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token_weight", -1),
        ("look_weight", -2),
        ("agent_factor", -1),
        ("edge_weight", -3),
        ("faded_share", 1.5),
        ("full_depth", 0),
        ("road_trust", 1.5),
    ],
)
def test_settings_without_a_meaning_are_refused(name, value):
    with pytest.raises(ValueError, match=r"imagination.*" + str(value)):
        ImaginationTrainingConfig(**{name: value})


def test_faded_frames_have_less_contrast_and_some_another_light(monkeypatch):
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (12, 2, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(faded(frames, 0.0), frames)
    light = faded(frames, 1.0).float().mean((1, 2, 3)) / frames.float().mean((1, 2, 3))  # (rows, colours)
    is_other = (light - 1).abs().amax(1) > 0.05
    assert 2 <= is_other.sum() <= 10
    assert light.mean(1).min() < 0.8
    assert (light[is_other].amax(1) / light[is_other].amin(1) > 1.05).any()
    monkeypatch.setattr(fading, "LIGHT_SHARE", 0.0)
    after = faded(frames, 1.0)
    contrast = after.float().std(dim=(1, 2, 3, 4)) / frames.float().std(dim=(1, 2, 3, 4))
    assert (contrast <= 1.01).all()
    assert contrast.min() < 0.5
    torch.testing.assert_close(
        after.float().mean((1, 2, 3)), frames.float().mean((1, 2, 3)), atol=1.0, rtol=0
    )


def run(out, *, steps: int, resume: bool = False) -> dict[str, torch.Tensor]:
    task = make_task()
    config = TrainingConfig(
        num_train_steps=steps,
        batch_size=BATCH,
        warmup_steps=0,
        min_learning_rate_ratio=1.0,
        evaluate_every=0,
        log_every=1,
        precision="32-true",
    )
    fit(task, config, out, resume=resume)
    return torch.load(out / "last.ckpt", weights_only=True)["model"]


def test_a_resumed_run_goes_on_bit_for_bit(tmp_path):
    assert any(int(batch["depth"]) > 0 for batch in draw(make_task(), 7)[4:])
    whole = run(tmp_path / "whole", steps=7)
    run(tmp_path / "parts", steps=4)
    parts = run(tmp_path / "parts", steps=7, resume=True)
    assert whole.keys() == parts.keys()
    assert any(name.startswith("rollouts.") for name in whole)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
