"""How true is the imagined world? `python -m benchmarks.fidelity --out F.json` measures it on held-out roads.

The model sees recorded frames, then goes on alone under the recorded actions: picture quality over the horizon beside
repeat-last-frame and the tokenizer's ceiling, the effect of actions, and motion read back from the pictures. Then
it is steered hard left and hard right, driven fast and slow, from the same starts; the reference world drives the
same manoeuvres, so that the instruments are tested on true frames in the same run. Last, it keeps the lane for a
hundred seconds (`drift.py`). `--rounds` compares decoding rounds instead (`decoding_rounds.py`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding_rounds import compare_samplers, rounds_plot, samplers_of, show_samplers
from benchmarks.drift import measure_drift
from benchmarks.drift_figures import add_drift_rows, drift_sheet
from benchmarks.fidelity_figures import (
    FidelityConfig,
    instruments,
    maneuver_sheet,
    measure,
    moving_pictures,
    moving_starts,
    sheet,
)
from benchmarks.fidelity_options import extent_of, parse
from benchmarks.fidelity_page import PLOTS
from benchmarks.held_out import (
    RATE_HZ,
    HeldOutScene,
    check_horizon,
    check_seeds,
    embedded_scenes,
    record_held_out,
)
from benchmarks.lane_drives import DriftConfig
from benchmarks.page import Picture, write_page
from benchmarks.pictures import learned_facts, open_networks
from benchmarks.report import (
    Report,
    Sheet,
    check_out,
    run_command,
    run_facts,
    weights_facts,
    write_sheet,
)
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics, load_inverse_dynamics
from drivesim.metrics.image import Extractor
from drivesim.scene.types import Camera, front_camera
from drivesim.video import write_video
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.world_model import WorldModel


@dataclass(kw_only=True, slots=True)
class Asked:
    """What the command line asks for, opened and checked."""

    config: FidelityConfig
    drift: DriftConfig | None
    samplers: dict[str, SamplerConfig]  # that are compared, and nothing else is measured; {} for the figures
    model: WorldModel
    inverse_dynamics: InverseDynamics | None
    hashes: dict[str, str]  # of the weights


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, open, record, measure, print, write."""
    options = parse(arguments, description=__doc__)
    check_out(options.out)
    torch.set_num_threads(options.threads)
    asked = asked_for(options)
    started_s = time.perf_counter()
    scenes = _scenes(options, asked)
    if asked.samplers:
        _compare_rounds(options, asked, scenes, started_s)
    else:
        _measure_and_write(options, asked, scenes, started_s)


def asked_for(options: argparse.Namespace) -> Asked:
    """Open and check everything that can be refused before roads are recorded.

    Raises:
        InputError: numbers without a meaning, or networks or weights that cannot be used.
    """
    config = FidelityConfig(
        horizon=options.horizon,
        num_starts=options.starts,
        takes_fewer=options.takes_fewer,
        batch_size=options.batch,
        has_map=not options.no_map,
        has_markings=not options.no_markings,
        has_agents=not options.no_agents,
    )
    named = {kind: getattr(options, kind.value) for kind in Extractor}
    networks = open_networks(named, num_starts=config.num_starts, horizon=config.horizon)
    idm = "" if options.idm == "none" else options.idm
    return Asked(
        config=replace(config, networks=networks),
        drift=_drift_config(options),
        samplers=samplers_of(options.rounds or [], options.orders, options.temperatures),
        model=load_world_model(options.weights),
        inverse_dynamics=load_inverse_dynamics(idm) if idm else None,
        hashes=weights_facts(weights=options.weights, idm=idm),
    )


def _measure_and_write(
    options: argparse.Namespace, asked: Asked, scenes: Sequence[HeldOutScene], started_s: float
) -> None:
    config, idm = asked.config, asked.inverse_dynamics
    measured = measure(asked.model, scenes, config, inverse_dynamics=idm)
    report, sheets = measured.report, {"": sheet(measured, config.horizons)}
    if measured.maneuver_frames is not None:
        sheets["-manoeuvres"] = maneuver_sheet(measured.maneuver_frames)
    if asked.drift is None or idm is None:
        reason = "--drift-steps 0" if asked.drift is None else "it needs an inverse dynamics model (--idm)"
        report.facts["drift"] = f"not measured: {reason}"
    else:
        drift = measure_drift(*instruments(asked.model, scenes[0].scene, config, idm), asked.drift)
        add_drift_rows(report, drift, asked.drift, config.networks)
        sheets["-drift"] = drift_sheet(drift)
        report.facts["drift"] = f"{asked.drift.num_steps} steps on {', '.join(drift.names)}"
    report.facts = _facts(options, asked, scenes, started_s) | learned_facts(config.networks) | report.facts
    report.show()
    _write(options.out, report, sheets)
    write_video(options.out.with_suffix(".gif"), moving_pictures(measured), asked.model.rate_hz)


def _write(out: Path, report: Report, sheets: Mapping[str, Sheet]) -> None:
    titles = {
        "": "Recorded and imagined under the same actions",
        "-manoeuvres": "Steered hard left and right, driven slow and fast",
        "-drift": "Lane following: the reference world above, the imagined one below",
    }
    pictures = [Picture(title=titles[suffix], rows=rows) for suffix, rows in sheets.items()]
    report.write(out)
    write_page(out.with_suffix(".html"), report, plots=PLOTS, pictures=pictures)
    for suffix, rows in sheets.items():
        write_sheet(out.with_name(f"{out.stem}{suffix}.{'jpg' if suffix == '-drift' else 'png'}"), rows)


def _compare_rounds(
    options: argparse.Namespace, asked: Asked, scenes: Sequence[HeldOutScene], started_s: float
) -> None:
    """Measure the gain over repeat-last for every way of decoding that was named."""
    config, samplers = asked.config, asked.samplers
    open_loop, _ = instruments(asked.model, scenes[0].scene, config, None)
    starts = moving_starts(scenes, config, open_loop)
    report = compare_samplers(open_loop, scenes, starts, samplers, horizons=config.horizons)
    report.facts = _facts(options, asked, scenes, started_s) | {"starts": len(starts)}
    show_samplers(report, samplers, config.horizons)
    report.write(options.out)
    write_page(options.out.with_suffix(".html"), report, plots=[rounds_plot(report)], pictures=[])


def _scenes(options: argparse.Namespace, asked: Asked) -> list[HeldOutScene]:
    """Load the scenes that were named, or record roads once it is known that the models can read them.

    Raises:
        InputError: as `check_fit`, scenes that do not exist, or a horizon beyond the roads.
    """
    check = partial(check_fit, asked.model, asked.inverse_dynamics, weights=options.weights)
    if options.scenes:
        scenes = embedded_scenes(options.scenes)
        for scene in scenes:
            check(scene.scene.camera, scene.scene.rate_hz)
        return scenes
    check(front_camera(), RATE_HZ)
    num_context_frames = asked.model.num_context_frames
    check_horizon(options.horizon, num_context_frames=num_context_frames, num_frames=options.frames)
    return record_held_out(first_seed=options.seed, num_scenes=options.num_scenes, num_frames=options.frames)


def _drift_config(options: argparse.Namespace) -> DriftConfig | None:
    if options.drift_steps == 0:
        return None
    return DriftConfig(first_seed=options.seed, num_roads=options.drift_roads, num_steps=options.drift_steps)


def _facts(
    options: argparse.Namespace, asked: Asked, scenes: Sequence[HeldOutScene], started_s: float
) -> dict[str, Any]:
    source = ", ".join(options.scenes) if options.scenes else f"seeds from {options.seed}"
    roads = "embedded scenes" if options.scenes else check_seeds(options.seed, options.num_scenes)
    sampler = asked.model.config.sampler
    return {
        "weights": options.weights,
        "idm": options.idm,
        **asked.hashes,
        "roads": roads,
        "scenes": f"{len(scenes)} ({source})",
        "extent": extent_of(options),
        "horizon": options.horizon,
        "rate_hz": scenes[0].scene.rate_hz,
        "context_frames": asked.model.num_context_frames,
        "decode_steps": sampler.num_decode_steps,
        "revisions": sampler.num_revisions,
        "unmask_order": sampler.order.value,
        "temperature": sampler.temperature,
        "temperature_rise": sampler.temperature_rise,
        "noise_memory": sampler.noise_memory,
        "map": _map_shown(options, scenes),
        "agents": _agents_shown(options, scenes),
        **run_facts(options, num_threads=options.threads),
        "took_s": round(time.perf_counter() - started_s),
    }


def _map_shown(options: argparse.Namespace, scenes: Sequence[HeldOutScene]) -> str:
    areas = [scene.scene.drivable for scene in scenes if scene.scene.drivable is not None]
    if options.no_map or not areas:
        return "none"
    has_lines = not options.no_markings and any(area.lines is not None for area in areas)
    return "drivable area and markings" if has_lines else "drivable area"


def _agents_shown(options: argparse.Namespace, scenes: Sequence[HeldOutScene]) -> str:
    is_known = any(scene.scene.agents is not None for scene in scenes)
    return "those of the start, moved on" if is_known and not options.no_agents else "none"


def check_fit(
    model: WorldModel,
    inverse_dynamics: InverseDynamics | None,
    camera: Camera,
    rate_hz: float,
    *,
    weights: str,
) -> None:
    """Refuse weights that were made for other recordings than these.

    Raises:
        InputError: a model that reads later frames too, frames of another size, or another rate.
    """
    if not model.config.stpt.is_frame_causal:
        raise InputError(
            f"the weights {weights} are of a preset that reads whole clips; "
            "this benchmark drives frame by frame: name weights of a drive preset"
        )
    sizes = {weights: (model.config.vqgan.width_px, model.config.vqgan.height_px, model.rate_hz)}
    if inverse_dynamics is not None:
        idm = inverse_dynamics.config
        sizes["the inverse dynamics model"] = (idm.width_px, idm.height_px, idm.rate_hz)
    recorded = (camera.width_px, camera.height_px, rate_hz)
    for name, read in sizes.items():
        if read != recorded:
            raise InputError(
                f"{name} reads frames of {_size(*read)}, but the recordings have {_size(*recorded)}; "
                "name weights of another preset"
            )


def _size(width_px: int, height_px: int, rate_hz: float) -> str:
    return f"{width_px}x{height_px} px at {rate_hz:g} Hz"


if __name__ == "__main__":
    run_command(main)
