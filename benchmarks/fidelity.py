"""How true is the imagined world? `python -m benchmarks.fidelity --out F.json` measures it on held-out roads.

The model sees recorded frames, then goes on alone under the recorded actions: picture quality over the horizon beside
repeat-last-frame and the tokenizer's ceiling, the effect of actions, and motion read back from the pictures. Then
it is steered hard left and hard right, driven fast and slow, from the same starts; the reference world drives the
same manoeuvres, so that the instruments are tested on true frames in the same run. Last, it keeps the lane for a
hundred seconds (`drift.py`). `--rounds` compares decoding rounds instead (`decoding_rounds.py`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding_rounds import compare_samplers, rounds_plot, samplers_of, show_samplers
from benchmarks.drift import add_drift_rows, drift_sheet, measure_drift
from benchmarks.fidelity_figures import (
    HORIZON,
    FidelityConfig,
    instruments,
    maneuver_sheet,
    measure,
    moving_pictures,
    moving_starts,
    sheet,
)
from benchmarks.fidelity_page import PLOTS
from benchmarks.held_out import (
    HeldOutScene,
    add_seed_option,
    check_horizon,
    check_seeds,
    embedded_scenes,
    record_held_out,
)
from benchmarks.lane_drives import DriftConfig
from benchmarks.page import Picture, write_page
from benchmarks.pictures import learned_facts, open_networks
from benchmarks.report import Report, Sheet, check_out, machine_facts, run_command, write_sheet
from drivesim.errors import InputError
from drivesim.inverse_dynamics import InverseDynamics, load_inverse_dynamics
from drivesim.metrics.image import Extractor
from drivesim.scene.types import Scene
from drivesim.video import write_video
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.sampler import UnmaskOrder
from drivesim.world_model.world_model import WorldModel


@dataclass(kw_only=True, slots=True, frozen=True)
class Extent:
    """How much is measured unless the command line says otherwise."""

    num_scenes: int
    starts: int
    drift_roads: int
    drift_steps: int


FULL = Extent(num_scenes=64, starts=64, drift_roads=4, drift_steps=600)
QUICK = Extent(num_scenes=10, starts=10, drift_roads=2, drift_steps=100)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, record, measure, print, write."""
    options = parse(arguments)
    check_out(options.out)
    torch.set_num_threads(options.threads)
    networks = open_networks({kind: getattr(options, kind.value) for kind in Extractor})
    config = FidelityConfig(
        horizon=options.horizon,
        num_starts=options.starts,
        takes_fewer=options.takes_fewer,
        batch_size=options.batch,
        networks=networks,
        has_map=not options.no_map,
        has_markings=not options.no_markings,
        has_agents=not options.no_agents,
    )
    model = load_world_model(options.weights)
    inverse_dynamics = None if options.idm == "none" else load_inverse_dynamics(options.idm)
    scenes = _scenes(options, num_context_frames=model.num_context_frames)
    check_fit(model, inverse_dynamics, scenes[0].scene, weights=options.weights)
    if options.rounds:
        _compare_rounds(options, model, scenes, config)
        return
    _measure_and_write(options, model, scenes, config, inverse_dynamics)


def _measure_and_write(
    options: argparse.Namespace,
    model: WorldModel,
    scenes: Sequence[HeldOutScene],
    config: FidelityConfig,
    inverse_dynamics: InverseDynamics | None,
) -> None:
    drift_config = _drift_config(options)
    measured = measure(model, scenes, config, inverse_dynamics=inverse_dynamics)
    report, sheets = measured.report, {"": sheet(measured, config.horizons)}
    if measured.maneuver_frames is not None:
        sheets["-manoeuvres"] = maneuver_sheet(measured.maneuver_frames)
    if drift_config is None or inverse_dynamics is None:
        reason = "--drift-steps 0" if drift_config is None else "it needs an inverse dynamics model (--idm)"
        report.facts["drift"] = f"not measured: {reason}"
    else:
        drift = measure_drift(*instruments(model, scenes[0].scene, config, inverse_dynamics), drift_config)
        add_drift_rows(report, drift, drift_config)
        sheets["-drift"] = drift_sheet(drift)
        report.facts["drift"] = f"{drift_config.num_steps} steps on {', '.join(drift.names)}"
    report.facts = _facts(options, model, scenes) | learned_facts(config.networks) | report.facts
    report.show()
    _write(options.out, report, sheets)
    write_video(options.out.with_suffix(".gif"), moving_pictures(measured), model.rate_hz)


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
    options: argparse.Namespace, model: WorldModel, scenes: Sequence[HeldOutScene], config: FidelityConfig
) -> None:
    """Measure the gain over repeat-last for every way of decoding that was named."""
    open_loop, _ = instruments(model, scenes[0].scene, config, None)
    starts = moving_starts(scenes, config, open_loop)
    samplers = samplers_of(options.rounds, options.orders, options.temperatures)
    report = compare_samplers(open_loop, scenes, starts, samplers, horizons=config.horizons)
    report.facts = _facts(options, model, scenes) | {"starts": len(starts)}
    show_samplers(report, samplers, config.horizons)
    report.write(options.out)
    write_page(options.out.with_suffix(".html"), report, plots=[rounds_plot(report)], pictures=[])


def _scenes(options: argparse.Namespace, *, num_context_frames: int) -> list[HeldOutScene]:
    if options.scenes:
        return embedded_scenes(options.scenes)
    check_horizon(options.horizon, num_context_frames=num_context_frames, num_frames=options.frames)
    return record_held_out(first_seed=options.seed, num_scenes=options.num_scenes, num_frames=options.frames)


def _drift_config(options: argparse.Namespace) -> DriftConfig | None:
    if options.drift_steps == 0:
        return None
    return DriftConfig(first_seed=options.seed, num_roads=options.drift_roads, num_steps=options.drift_steps)


def _facts(options: argparse.Namespace, model: WorldModel, scenes: Sequence[HeldOutScene]) -> dict[str, Any]:
    source = ", ".join(options.scenes) if options.scenes else f"seeds from {options.seed}"
    roads = "embedded scenes" if options.scenes else check_seeds(options.seed, options.num_scenes)
    sampler = model.config.sampler
    return {
        "weights": options.weights,
        "roads": roads,
        "scenes": f"{len(scenes)} ({source})",
        "extent": _extent(options),
        "horizon": options.horizon,
        "rate_hz": scenes[0].scene.rate_hz,
        "context_frames": model.num_context_frames,
        "decode_steps": sampler.num_decode_steps,
        "unmask_order": sampler.order.value,
        "temperature": sampler.temperature,
        "temperature_rise": sampler.temperature_rise,
        "noise_memory": sampler.noise_memory,
        "map": _map_shown(options, scenes),
        "agents": _agents_shown(options, scenes),
        **machine_facts(num_threads=options.threads),
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


def _extent(options: argparse.Namespace) -> str:
    chosen = Extent(
        num_scenes=options.num_scenes,
        starts=options.starts,
        drift_roads=options.drift_roads,
        drift_steps=options.drift_steps,
    )
    if chosen == FULL and options.horizon == HORIZON and not options.scenes:
        return "full"
    if chosen == QUICK:
        return "quick: fewer starts and a shorter drift than published"
    return "chosen on the command line"


def check_fit(
    model: WorldModel, inverse_dynamics: InverseDynamics | None, scene: Scene, *, weights: str
) -> None:
    """Refuse weights that were made for other recordings than these.

    Raises:
        InputError: a model that reads later frames too, frames of another size, or another rate.
    """
    camera = scene.camera
    if not model.config.stpt.is_frame_causal:
        raise InputError(
            f"the weights {weights} are of a preset that reads whole clips; "
            "this benchmark drives frame by frame: name weights of a drive preset"
        )
    sizes = {weights: (model.config.vqgan.width_px, model.config.vqgan.height_px, model.rate_hz)}
    if inverse_dynamics is not None:
        idm = inverse_dynamics.config
        sizes["the inverse dynamics model"] = (idm.width_px, idm.height_px, idm.rate_hz)
    for name, (width_px, height_px, rate_hz) in sizes.items():
        if (width_px, height_px, rate_hz) != (camera.width_px, camera.height_px, scene.rate_hz):
            raise InputError(
                f"{name} reads frames of {width_px}x{height_px} px at {rate_hz:g} Hz, but the recordings have "
                f"{camera.width_px}x{camera.height_px} px at {scene.rate_hz:g} Hz; name weights of another preset"
            )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--weights", default="drive-tiny", help="shipped name or .safetensors file")
    parser.add_argument("--idm", default="inverse-dynamics", help="inverse dynamics weights, or none")
    parser.add_argument("--scenes", nargs="+", help="embedded scenes by name, or all, instead of new roads")
    add_seed_option(parser)
    parser.add_argument("--num-scenes", type=int, help=f"roads to record ({FULL.num_scenes})")
    parser.add_argument("--frames", type=int, default=48, help="frames per road (48)")
    parser.add_argument("--horizon", type=int, default=HORIZON, help=f"steps to imagine ({HORIZON})")
    parser.add_argument("--starts", type=int, help=f"instants at which the model takes over ({FULL.starts})")
    parser.add_argument("--drift-roads", type=int, help=f"roads of the drift ({FULL.drift_roads})")
    parser.add_argument("--drift-steps", type=int, help=f"its steps, 0 for none ({FULL.drift_steps})")
    parser.add_argument("--no-map", action="store_true", help="do not show the model where the road is")
    parser.add_argument(
        "--no-markings", action="store_true", help="do not show it what is painted on the road"
    )
    parser.add_argument(
        "--no-agents", action="store_true", help="do not show it where other cars were at the start"
    )
    parser.add_argument("--quick", action="store_true", help="fewer starts, a shorter drift: a first look")
    parser.add_argument("--batch", type=int, default=8, help="starts imagined at once (8)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (2)")
    for kind in Extractor:
        parser.add_argument(f"--{kind.value}", type=Path, help=f"TorchScript network for {kind.name}")
    _add_rounds_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="json file; a page and sheets lie beside it")
    return _completed(parser.parse_args(arguments))


def _completed(options: argparse.Namespace) -> argparse.Namespace:
    """Fill in what depends on ``--quick`` and refuse what has no meaning."""
    options.takes_fewer = options.starts is None
    extent = QUICK if options.quick else FULL
    for name in ("num_scenes", "starts", "drift_roads", "drift_steps"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(extent, name))
    for name in ("num_scenes", "frames", "threads"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(options, name)}")
    return options


def _add_rounds_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=int, nargs="+", help="compare these numbers of decoding rounds, and nothing else"
    )
    parser.add_argument(
        "--orders",
        type=UnmaskOrder,
        nargs="+",
        default=list(UnmaskOrder),
        help="orders of unmasking to compare: confidence, random (both)",
    )
    parser.add_argument(
        "--temperatures", type=float, nargs="+", default=[0.0], help="temperatures to compare (0)"
    )


if __name__ == "__main__":
    run_command(main)
