"""Which hazard head sees other cars in the learned world: the command-line option, and what is said without one."""

from __future__ import annotations

import argparse

from drivesim import console
from drivesim.rollout import EpisodeConfig
from drivesim.shared_models import hazard_head_name


def add_hazard_head_option(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a hazard head."""
    parser.add_argument(
        "--hazard-head",
        metavar="NAME_OR_PATH",
        help='sees collisions in the learned world: shipped name or .safetensors file, "" for none '
        "(that of the weights, where there is one)",
    )


def warn_without_head(episode: EpisodeConfig, *, also_reference: bool) -> None:
    """Warn where no head is there for the learned world, so that collisions cannot be seen in it.

    Args:
        episode: names the weights and the head.
        also_reference: the same drives are measured in the reference world too, where collisions are known.
    """
    if hazard_head_name(episode):
        return
    measured = "can be measured in the reference world only" if also_reference else "cannot be measured"
    meaning = "so the scores of the two worlds have different parts" if also_reference else "scores lack them"
    console.warn(
        f"no hazard head with the weights {episode.weights}: NC (collisions) and TTC (time to collision) {measured}, "
        f"{meaning}; name a head that was trained on these weights with --hazard-head"
    )
