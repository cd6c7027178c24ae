"""Labels, samples, training and calibration of the hazard head, and figures of it on arrays made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hazard_samples import SMALL, samples
from torch import nn

from drivesim.checkpoint import read_checkpoint
from drivesim.config import load_config
from drivesim.errors import InputError
from drivesim.hazard import load_hazard_head
from drivesim.hazard_inputs import HazardInputs
from drivesim.metrics.ranking import reliability, roc_auc
from drivesim.reference.seeds import FIRST_VALIDATION_SEED
from drivesim.training import commands
from drivesim.training.hazard_calibration import (
    ContactRecord,
    best_f1_threshold,
    calibrate,
    contact_records,
    contact_threshold,
    final_metrics,
)
from drivesim.training.hazard_drives import (
    DRIVERS,
    NONE,
    SHARES,
    KnownDrive,
    Wanted,
    draw_instants,
    draw_start,
    find_drive,
    first_step,
    with_events,
)
from drivesim.training.hazard_head import (
    HazardTask,
    HazardTrainingConfig,
    is_within,
    mirrored,
    survival_loss,
    varied,
)
from drivesim.training.hazard_samples import HazardSetConfig
from drivesim.training.row_draws import RowDraws, rows_of

SETTINGS = HazardTrainingConfig(model=SMALL)


def known(num_frames: int = 40, *, contact: int | None = None, off_road: tuple[int, ...] = ()) -> KnownDrive:
    """Return a drive without a world whose events are given; another car comes nearer all the time."""
    is_contact, is_off_road = np.zeros(num_frames, bool), np.zeros(num_frames, bool)
    if contact is not None:
        is_contact[contact:] = True
    is_off_road[list(off_road)] = True
    gap_m = 50.0 - np.arange(num_frames)
    return KnownDrive(drive=None, seed=1, is_contact=is_contact, is_off_road=is_off_road, gap_m=gap_m)


def test_the_first_event_within_sight_is_the_label() -> None:
    is_event = np.zeros(20, bool)
    is_event[[8, 9]] = True
    found = [first_step(is_event, t, last=19, num_steps=6) for t in (1, 2, 7, 8, 9, 10)]
    assert found == [NONE, 6, 1, 0, 0, NONE]
    assert first_step(is_event, 5, last=7, num_steps=6) == NONE


def test_nothing_is_known_after_the_first_contact() -> None:
    drive = known(contact=12, off_road=(14,))
    assert drive.last == 12
    labels = drive.labels(np.array([5, 6, 10, 12]), 6)
    assert labels.event_NE.tolist() == [[-1, -1], [6, -1], [2, -1], [0, -1]]
    assert labels.known_N.tolist() == [6, 6, 2, 0]


def test_the_end_of_a_drive_is_the_end_of_knowledge() -> None:
    assert known(20).labels(np.array([13, 16, 19]), 6).known_N.tolist() == [6, 3, 0]


def test_off_road_is_known_until_the_contact() -> None:
    labels = known(contact=12, off_road=(7, 8)).labels(np.array([3, 8, 9]), 6)
    assert labels.event_NE[:, 1].tolist() == [4, 0, -1]


@pytest.mark.parametrize("wanted", list(Wanted))
def test_instants_lie_before_the_contact_and_near_what_is_wanted(wanted: Wanted) -> None:
    drive = known(contact=30, off_road=(22, 23))
    instants = draw_instants(drive, wanted, np.random.default_rng(0), 36)
    assert instants.min() >= 1
    assert instants.max() <= 30
    assert (np.diff(instants) > 0).all()
    event = 22 if wanted is Wanted.OFF_ROAD else 30
    assert (np.abs(instants - event) < 12).mean() > 0.4


def test_imagined_frames_lead_to_the_event() -> None:
    drive, rng = known(contact=30), np.random.default_rng(0)
    starts = [draw_start(drive, Wanted.COLLISION, rng, num_context=4, num_imagined=12) for _ in range(50)]
    depths = 30 - 3 - np.array(starts)  # at which the contact would be imagined
    assert depths.min() >= 1
    assert depths.max() > 12  # some only come near it
    long = [draw_start(known(70), Wanted.BLIND, rng, num_context=4, num_imagined=60) for _ in range(3)]
    assert all(start + 4 + 60 <= 70 for start in long)


def test_shares_of_drives_and_drivers_sum_to_one() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    for shares in DRIVERS.values():
        assert sum(shares.values()) == pytest.approx(1)


def test_a_drive_into_a_car_is_found_in_the_reference_world() -> None:
    drive = find_drive(Wanted.COLLISION, first_seed=300_000, num_frames=40)
    again = with_events(drive.drive, seed=drive.seed)
    assert np.array_equal(drive.is_off_road, again.is_off_road)
    assert len(drive.gap_m) == len(drive.is_contact) == 40
    if drive.is_contact.any():
        assert drive.gap_m[drive.last] < 8.0


def test_the_loss_counts_steps_up_to_the_event_or_the_end_of_knowledge() -> None:
    logits = torch.zeros(3, 2, 7)
    event = torch.tensor([[2, -1], [-1, 0], [-1, -1]])
    loss = survival_loss(logits, event, torch.tensor([6, 6, 1])) / np.log(2)
    assert torch.allclose(loss, torch.tensor([[3.0, 7.0], [7.0, 1.0], [2.0, 2.0]]))


def test_the_loss_is_least_where_the_hazard_is_where_the_event_is() -> None:
    event, known_steps = torch.tensor([[3, -1]]), torch.tensor([6])
    right, wrong = torch.full((1, 2, 7), -6.0), torch.full((1, 2, 7), -6.0)
    right[0, 0, 3], wrong[0, 0, 2] = 6.0, 6.0
    assert survival_loss(right, event, known_steps).sum() < 0.1
    assert survival_loss(wrong, event, known_steps).sum() > 10


def test_mirroring_twice_gives_the_state_back_and_turns_left_into_right() -> None:
    inputs = samples(6).inputs()
    once = mirrored(inputs, SMALL)
    twice = mirrored(once, SMALL)
    for name in ("pictures_BCHW", "token_ids_BS", "facts_BF"):
        assert torch.equal(getattr(twice, name), getattr(inputs, name))
        assert not torch.equal(getattr(once, name), getattr(inputs, name))
    assert torch.equal(once.facts_BF[:, 1], -inputs.facts_BF[:, 1])
    assert torch.equal(once.facts_BF[:, [0, 2, 3]], inputs.facts_BF[:, [0, 2, 3]])


def test_variation_hides_maps_and_keeps_shapes() -> None:
    inputs, draws = samples(16).inputs(), RowDraws(0, range(16))
    settings = HazardTrainingConfig(model=SMALL, hidden_map_share=1.0, mirrored_share=0.0)
    found = varied(inputs, torch.zeros(16, dtype=torch.bool), settings, draws)
    assert not found.facts_BF[:, 3:].any()
    assert torch.equal(found.token_ids_BS, inputs.token_ids_BS)
    assert found.pictures_BCHW.shape == inputs.pictures_BCHW.shape
    assert 0 <= found.pictures_BCHW.min() <= found.pictures_BCHW.max() <= 255


def test_a_batch_depends_on_seed_and_step_alone_and_mixes_true_and_imagined() -> None:
    task = HazardTask(SETTINGS, samples(), samples(16, seed=1))
    stream = {"batch_size": 32, "seed": 3, "rank": 0, "world_size": 1}
    batches = task.batches(start_step=0, **stream)
    next(batches)
    second = next(batches)
    resumed = next(task.batches(start_step=1, **stream))
    assert all(torch.equal(second[name], resumed[name]) for name in second)
    assert task.num_frames(second) == 32


def test_a_few_steps_lower_the_loss() -> None:
    torch.manual_seed(0)
    task = HazardTask(SETTINGS, samples(), samples(32, seed=1))
    before = task.evaluate(task.model).metrics["loss"]
    batches = task.batches(start_step=0, batch_size=16, seed=0, rank=0, world_size=1)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    for step in range(15):
        optimizer.zero_grad()
        task.losses(task.model, next(batches), RowDraws(0, rows_of(step, 16, rank=0, world_size=1)))[
            "loss"
        ].backward()
        optimizer.step()
    after = task.evaluate(task.model).metrics
    assert after["loss"] < before
    assert after["collision_auc_true"] > 0.8


def test_the_command_trains_calibrates_and_writes_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (samples(), samples(32, seed=1))
    monkeypatch.setattr(commands, "open_hazard_samples", lambda *_, **__: made)
    sizes = ["picture_widths=[8,8]", "width=16", "num_blocks=1", "place_channels=4"]
    overrides = [f"hazard_head.model.{size}" for size in sizes]
    training = ["num_train_steps=2", "batch_size=4", "accelerator=cpu", "num_threads=1"]
    config = load_config("train", [*overrides, *(f"training.{setting}" for setting in training)])
    result = commands.train_hazard_head(config, tmp_path / "run")
    assert result.weights == tmp_path / "run" / "hazard-head.safetensors"
    head = load_hazard_head(result.weights)
    assert head.contact_threshold == pytest.approx(result.metrics["contact_threshold"])
    assert head.config.logit_shift != [0.0, 0.0]
    facts = read_checkpoint(result.weights).facts
    assert (facts["task"], facts["step"], facts["data"]) == ("hazard-head", 2, {})


def test_calibration_lowers_the_loss_and_sets_thresholds() -> None:
    torch.manual_seed(0)
    task = HazardTask(SETTINGS, samples(), samples(64, seed=1))
    before = task.evaluate(task.model).metrics["loss"]
    head = calibrate(task.head, task.validation)
    probability = head.calibrated(torch.zeros(1, 2, 7))
    assert probability.shape == (1, 2, 7)
    assert head.config.logit_shift[0] != 0
    metrics = final_metrics(head, task.validation)
    assert metrics["collision_ece_true"] < 0.3
    assert {"contact_threshold", "collision_threshold", "contact_recall"} <= metrics.keys()
    assert before == pytest.approx(metrics["loss"], abs=1e-5)  # of the logits as they are


def test_the_contact_threshold_lies_above_quiet_drives() -> None:
    quiet = [ContactRecord(has_contact=False, before=0.01 * i, at=0.0) for i in range(50)]
    loud = [ContactRecord(has_contact=True, before=0.95, at=0.99)]
    threshold = contact_threshold(quiet + loud)
    assert 0.47 < threshold < 0.5
    assert np.mean([record.before >= threshold for record in quiet]) <= 0.05
    assert contact_threshold(quiet[:4]) == 0.05


def test_contact_records_tell_early_from_timely() -> None:
    count = 6
    made = samples(count)
    made.rollout[:], made.depth[:] = 0, np.arange(1, count + 1)
    made.event[:, 0] = [-1, 5, 3, 2, 1, 0]
    contact = torch.tensor([0.1, 0.2, 0.3, 0.05, 0.7, 0.6])

    class Fixed(nn.Module):
        place = torch.zeros(1)

        def forward(self, inputs: HazardInputs) -> tuple[torch.Tensor, None]:
            logits = torch.full((len(inputs.facts_BF), 2, 7), -9.0)
            logits[:, 0, 0] = torch.logit(contact)
            return logits, None

        def calibrated(self, logits: torch.Tensor) -> torch.Tensor:
            return logits.sigmoid()

        def contact(self, hazard: torch.Tensor) -> torch.Tensor:
            return hazard[:, 0, 0]

    [record] = contact_records(Fixed(), made)
    assert record.has_contact
    assert (record.before, record.at) == pytest.approx((0.3, 0.7))


def test_the_best_threshold_separates_what_can_be_separated() -> None:
    probability = np.array([0.1, 0.2, 0.3, 0.7, 0.8])
    threshold = best_f1_threshold(probability, probability > 0.5)
    assert 0.3 < threshold <= 0.7


def test_area_under_the_curve_of_known_arrays() -> None:
    assert roc_auc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 1.0
    assert roc_auc([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1]) == 0.0
    assert roc_auc([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1]) == 0.5
    assert roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert np.isnan(roc_auc([0.1, 0.2], [1, 1]))


def test_weights_count_cases_several_times() -> None:
    rng = np.random.default_rng(0)
    said, seen, weight = rng.random(50).round(1), rng.random(50) < 0.4, rng.integers(0, 4, 50)
    repeated = roc_auc(np.repeat(said, weight), np.repeat(seen, weight))
    assert roc_auc(said, seen, weight) == pytest.approx(repeated)


def test_reliability_of_known_arrays() -> None:
    found = reliability([0.05, 0.05, 0.95, 1.0], [0, 1, 1, 1], num_bins=10)
    assert found.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.observed[[0, 9]].tolist() == [0.5, 1.0]
    assert found.error == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)


def test_censored_samples_do_not_count() -> None:
    made = samples(4)
    made.event[:, 0] = [NONE, 2, NONE, NONE]
    made.known[:] = [6, 6, 3, 6]
    comes, is_known = is_within(made, 0, 6)
    assert comes.tolist() == [False, True, False, False]
    assert is_known.tolist() == [True, True, False, True]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="first_seed"):
        HazardTrainingConfig(first_seed=FIRST_VALIDATION_SEED - 10)
    with pytest.raises(ValueError, match="mirrored_share"):
        HazardTrainingConfig(mirrored_share=2.0)
    with pytest.raises(ValueError, match="validation drives"):
        HazardTrainingConfig(num_validation_drives=5000)
    with pytest.raises(ValueError, match="frames_per_drive"):
        HazardSetConfig(frames_per_drive=4)
    with pytest.raises(InputError, match="no true or no imagined"):
        HazardTask(SETTINGS, samples().chosen(samples().depth == 0), samples())
