"""Fine-tuning of a whole world model on recordings of another world, stage after stage.

A run's folder holds ``clips/`` (what was read of the data set), one folder per stage, and in the end
``world-model.safetensors``, ``fidelity.json`` and ``futures.png``. A run that was killed at any moment goes on where it
was: what is there already is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from drivesim import console
from drivesim.checkpoint import resolve_weights, save_module, shipped_weights
from drivesim.config_json import config_to_json
from drivesim.errors import InputError
from drivesim.files import atomic_path
from drivesim.training.best_weights import BEST_NAME, BestWeights, read_history
from drivesim.training.checkpoints import CHECKPOINT_NAME, load_checkpoint
from drivesim.training.config import TrainConfig
from drivesim.training.fidelity_table import (
    Fidelity,
    futures_sheet,
    measure_fidelity,
    named_figures,
    table_rows,
)
from drivesim.training.fine_tuning_data import CONTEXT, JUDGED_STEP, FineTuningData, describe, open_data
from drivesim.training.fine_tuning_stages import Stage, stages_of, training_of
from drivesim.training.loop import FitResult, fit
from drivesim.training.open_loop import OpenLoopCheck
from drivesim.training.scene_source import RATE_HZ
from drivesim.video import write_image
from drivesim.world_model.pretrained import load_world_model, trainable_world_model
from drivesim.world_model.world_model import WorldModel, WorldModelConfig

WEIGHTS_NAME = "world-model.safetensors"
BEFORE_NAME, FIDELITY_NAME, FUTURES_NAME = "before.json", "fidelity.json", "futures.png"
STAGE_NAME, STAGE_WEIGHTS_NAME = "stage.json", "stage.safetensors"
FIGURE = f"gain_db_at_{JUDGED_STEP}"


@dataclass(kw_only=True, slots=True)
class StageResult:
    """How a stage ended; the gains are those of the windows that are checked during training."""

    name: str
    steps: int
    minutes: float
    gain_db_before: float
    gain_db_after: float  # of the best weights; of the last ones where none were better than before
    is_kept: bool


def fine_tune(
    config: TrainConfig, out: Path, *, resume: bool = False, on_start: Callable[[], None] | None = None
) -> FitResult:
    """Fit a world model to a data set; the result's ``weights`` are ``out/world-model.safetensors``.

    Args:
        config: The run, of which ``fine_tuning`` and ``training`` are read, and the parts of the stages.
        out: The run's folder.
        resume: Go on with the run in ``out``.
        on_start: Called before the first step, when all is found fit to run.

    Raises:
        InputError: bad data or weights, settings that have no place here, or ``out`` holds a run and ``resume`` is
            False.
    """
    if not resume and (out / BEFORE_NAME).exists():
        raise InputError(f"{out} already holds a run; add --resume to go on with it or choose another --out")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(config.training.num_threads or num_threads)
    try:
        return _fine_tuned(config, out, on_start)
    finally:
        torch.set_num_threads(num_threads)


def _fine_tuned(config: TrainConfig, out: Path, on_start: Callable[[], None] | None) -> FitResult:
    settings = config.fine_tuning
    training_of(config, settings.imagination, max_minutes=1.0)  # refuses what has no place, before all else
    init = named_weights(settings.init)
    _check_fit(load_world_model(init), init)
    data = open_data(settings, out / "clips")
    describe(data.facts)
    if on_start is not None:
        on_start()
    before = _before(data, init, out)
    model, results, folder = _trained(config, data, init, out)
    weights = out / WEIGHTS_NAME
    facts = _weight_facts(config, data, results)
    save_module(model, weights, kind="world-model", config=model.config, facts=facts)
    after = _finish(data, weights, before, results, out)
    steps = sum(result.steps for result in results)
    figures = named_figures(before, after)
    return FitResult(step=steps, metrics=figures, checkpoint=folder / CHECKPOINT_NAME, weights=weights)


def named_weights(name: str) -> str:
    """Return weights by a name in which underscores may stand for hyphens, or a file as it is.

    Raises:
        InputError: it is neither.
    """
    shipped = {known.replace("-", "_"): known for known in shipped_weights()}
    plain = name.replace("-", "_")
    if plain in shipped and not Path(name).is_file():
        return shipped[plain]
    if not Path(name).is_file():
        near = get_close_matches(plain, shipped, n=1, cutoff=0.5)
        hint = f"; did you mean {shipped[near[0]]}?" if near else ""
        raise InputError(f"there are no weights init={name}: name shipped ones or a .safetensors file{hint}")
    return str(resolve_weights(name))


def _check_fit(model: WorldModel, name: str) -> None:
    vqgan = model.tokenizer.config
    if (vqgan.width_px, vqgan.height_px, model.rate_hz) != (224, 128, RATE_HZ):
        raise InputError(
            f"{name} reads {vqgan.width_px}x{vqgan.height_px} px at {model.rate_hz:g} Hz, but scenes are read at "
            f"224x128 px and {RATE_HZ:g} Hz; begin with other weights"
        )


def _before(data: FineTuningData, init: str, out: Path) -> Fidelity:
    """Return the figures of the untouched weights, measured now or before."""
    path = out / BEFORE_NAME
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        known["gain_db"] = {int(step): value for step, value in known["gain_db"].items()}
        return Fidelity(**known)
    before = measure_fidelity(load_world_model(init), data.held_out, data.camera, label="untouched weights")
    _write_json(path, asdict(before))
    return before


def _trained(
    config: TrainConfig, data: FineTuningData, init: str, out: Path
) -> tuple[WorldModel, list[StageResult], Path]:
    """Run all stages that are not done yet; return the world model after the last, and that stage's folder."""
    checked = data.checked(config.fine_tuning.num_checked_windows)
    check = OpenLoopCheck(checked, data.camera, num_context_frames=CONTEXT, horizon=JUDGED_STEP)
    minutes = config.training.max_minutes or config.fine_tuning.max_minutes
    stages = list(stages_of(config, data, check))
    results: list[StageResult] = []
    weights, folder = init, out
    for index, stage in enumerate(stages):
        folder = out / f"{index + 1}-{stage.name}"
        if not (folder / STAGE_NAME).is_file():
            share = stage.settings.share / sum(later.settings.share for later in stages[index:])
            left = minutes - sum(result.minutes for result in results)
            _run_stage(config, stage, check, weights, folder, max_minutes=max(share * left, 1e-3))
        results.append(StageResult(**json.loads((folder / STAGE_NAME).read_text(encoding="utf-8"))))
        weights = str(folder / STAGE_WEIGHTS_NAME)
    return load_world_model(weights, dtype=torch.float32), results, folder


def _run_stage(
    config: TrainConfig,
    stage: Stage,
    check: OpenLoopCheck,
    weights: str,
    folder: Path,
    *,
    max_minutes: float,
) -> None:
    """Train one stage, and keep its best weights if they are better than those that it began with."""
    torch.manual_seed(config.training.seed)
    model = trainable_world_model(weights, WorldModelConfig())
    task = stage.make(model)
    history = read_history(folder)
    start = _gain_db(check, model, config.training.seed) if history is None else history.start
    guard = BestWeights(folder, FIGURE, start=start, patience=config.fine_tuning.patience)
    if not guard.is_enough:
        training = training_of(config, stage.settings, max_minutes=max_minutes)
        fit(task, training, folder, resume=folder.is_dir(), on_evaluation=guard)
    best, last = guard.history.best, guard.history.evaluations[-1]
    kept = trainable_world_model(weights, WorldModelConfig()) if best is None else model
    if best is not None:
        task.model.load_state_dict(load_file(folder / BEST_NAME))
    save_module(
        kept, folder / STAGE_WEIGHTS_NAME, kind="world-model", config=kept.config, dtype=torch.float32
    )
    elapsed_s = load_checkpoint(folder / CHECKPOINT_NAME, is_mapped=True).elapsed_s
    ended = StageResult(
        name=stage.name,
        steps=last.step,
        minutes=elapsed_s / 60,
        gain_db_before=start,
        gain_db_after=last.value if best is None else best.value,
        is_kept=best is not None,
    )
    _say_end(ended)
    _write_json(folder / STAGE_NAME, asdict(ended))


@torch.no_grad()
def _gain_db(check: OpenLoopCheck, model: WorldModel, seed: int) -> float:
    torch.manual_seed(seed)  # as before every evaluation of a run
    return check.evaluate(model).metrics[FIGURE]


def _say_end(result: StageResult) -> None:
    gain = f"PSNR gain at {JUDGED_STEP} steps {result.gain_db_before:.2f} -> {result.gain_db_after:.2f} dB"
    verdict = "its best weights are kept" if result.is_kept else "nothing improved, so the stage is undone"
    console.say(f"{result.name}: {result.steps} steps in {result.minutes:.1f} minutes, {gain}; {verdict}")


def _finish(
    data: FineTuningData, weights: Path, before: Fidelity, results: list[StageResult], out: Path
) -> Fidelity:
    """Measure the new weights, print the table, and write it and the sheet of futures."""
    model = load_world_model(weights)
    after = measure_fidelity(model, data.held_out, data.camera, label="fine-tuned weights")
    write_image(out / FUTURES_NAME, futures_sheet(model, data.held_out, data.camera))
    figures = {
        **data.facts,
        "before": before.as_dict(),
        "after": after.as_dict(),
        "stages": [asdict(result) for result in results],
    }
    _write_json(out / FIDELITY_NAME, figures)
    console.print_table(
        f"fidelity on {after.num_windows} held-out windows",
        ["figure", "before", "after", "difference"],
        table_rows(before, after),
    )
    console.say(f"futures to the left, straight on and to the right: {out / FUTURES_NAME}")
    return after


def _weight_facts(config: TrainConfig, data: FineTuningData, results: list[StageResult]) -> dict[str, Any]:
    """Return what the weights say of themselves; where the data lies is left out."""
    settings = replace(config.fine_tuning, data=Path(config.fine_tuning.data).name)
    return {
        "task": "fine-tuning",
        "seed": config.training.seed,
        "settings": config_to_json(settings),
        "data": data.facts,
        "stages": [asdict(result) for result in results],
        "date": datetime.now(UTC).date().isoformat(),
        "drivesim": version("drivesim"),
    }


def _write_json(path: Path, value: object) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
