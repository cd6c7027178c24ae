"""`drivesim tokenize`: the tokens of a data set, made once for many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drivesim import console


def tokenize(  # noqa: PLR0913 one parameter per flag
    out: Annotated[Path, typer.Option(help="Folder of the tokens; a run that was stopped goes on there.")],
    dataroot: Annotated[Path | None, typer.Option(help="A data set in the nuScenes schema.")] = None,
    version: Annotated[str, typer.Option(help="Its version folder.")] = "v1.0-mini",
    scenes: Annotated[str | None, typer.Option(help="Scenes, such as a,b,c; all if left out.")] = None,
    weights: Annotated[
        str, typer.Option(help="World model that makes the tokens: a shipped name or a file.")
    ] = "drive-tiny",
    frames_per_clip: Annotated[int, typer.Option(help="Frames of a clip, at 6 Hz.")] = 36,
    stride: Annotated[
        int, typer.Option(help="Frames from the start of a clip to the start of the next.")
    ] = 18,
    clips_per_shard: Annotated[int, typer.Option(help="Clips in a file.")] = 64,
    imagined_share: Annotated[
        float, typer.Option(help="Of the clips, whose past the weights imagine; 0 keeps to the truth.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of what is imagined.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that share the work.")] = 2,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Share the work over a Ray cluster: auto, ray://HOST:PORT."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    verify: Annotated[
        bool, typer.Option("--verify", help="Only compare the shards in the folder with their checksums.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write tokens and motion of a data set's clips in shards that `train world-model` reads."""
    del debug  # read by main()
    from drivesim.errors import InputError
    from drivesim.scene.nuscenes import open_dataset
    from drivesim.training.token_making import tokenize_scenes
    from drivesim.training.token_plan import TokenizeConfig

    if verify:
        return _verify(out)
    if dataroot is None:
        raise InputError("drivesim tokenize needs --dataroot, a data set in the nuScenes schema")
    config = TokenizeConfig(
        frames_per_clip=frames_per_clip,
        stride=stride,
        clips_per_shard=clips_per_shard,
        imagined_share=imagined_share,
        seed=seed,
        num_workers=workers,
        ray_address=ray,
        device=device,
    )
    names = [name.strip() for name in (scenes or "").split(",") if name.strip()]
    dataset = open_dataset(
        dataroot.expanduser().absolute(), version
    )  # other machines have another working folder
    manifest = tokenize_scenes(dataset, weights, out, config, names=names)
    num_skipped = len(manifest.clips) - manifest.num_clips
    size_mb = sum(record.num_bytes for record in manifest.shards if record is not None) / 1e6
    console.say(
        f"{manifest.num_clips} clips of {len(manifest.scene_names())} scenes in {len(manifest.shards)} shards "
        f"({size_mb:.1f} MB), {num_skipped} skipped\n"
        f"train with: drivesim train world-model data.source=tokens tokens.path={out} world_model.init={weights}"
    )


def _verify(out: Path) -> None:
    from drivesim.training.token_manifest import read_manifest
    from drivesim.training.token_shards import damaged_shards, refuse_damaged

    manifest = read_manifest(out)
    with console.progress_bar("reading shards", len(manifest.shards)) as bar:
        damaged = damaged_shards(out, manifest, is_hashed=True, on_progress=bar.update)
    refuse_damaged(out, damaged)
    rest = f", {len(manifest.missing)} not made yet" if manifest.missing else ""
    console.say(f"{len(manifest.shards) - len(manifest.missing)} shards are whole{rest}")
