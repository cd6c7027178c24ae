"""Hazard head: will the car touch another one, or leave the road, within the next second? Read off a world state.

The ego motion is exact in the learned world, but other cars are in the picture only, and so is the road where there
is no map. The head looks at the two newest pictures, the tokens of the newest, the motion and, where there is one, the
map. It is a discrete-time hazard model: for every coming step the chance that the event happens there, given that it
did not before. What the driver will do is not known, so a probability is one over drivers.

Letters: see ``drivesim/world_model/__init__.py``; here `H W` are cells of ``PICTURE_STRIDE`` pixels, `E` = 2 events
(collision, off-road), `K` steps from now on, `F` numbers about the motion and the map.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from drivesim.checkpoint import load_module, save_module
from drivesim.hazard_inputs import CELLS, EVENTS, NUM_PICTURES, HazardInputs, read_state
from drivesim.hazard_inputs import HazardConfig as HazardConfig
from drivesim.tokenizer.quantizer import FiniteScalarQuantizer
from drivesim.world_model.world_state import WorldState

KIND = "hazard-head"


@dataclass(kw_only=True, slots=True)
class Hazards:
    """Probabilities (B,) of what may happen."""

    collision: Tensor  # within the next second, now included
    off_road: Tensor  # the same of leaving the road with more than half of the car
    contact: Tensor  # that the car touches another now: in the newest frame or, as the pictures go, the next
    is_outside: Tensor  # that more than half of the car is off the road now


class _Block(nn.Module):
    """Norm over channels, two 3x3 convolutions, added to the input; nothing is shared between rows of a batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = rearrange(self.norm(rearrange(x_BCHW, "b c h w -> b h w c")), "b h w c -> b c h w")
        refined_BCHW: Tensor = x_BCHW + self.second(functional.silu(self.first(functional.silu(h_BCHW))))
        return refined_BCHW


class HazardHead(nn.Module):
    """A small network over the newest pictures and tokens of a world state."""

    def __init__(self, config: HazardConfig | None = None) -> None:
        """Build the network; every event starts out rare."""
        super().__init__()
        self.config = config = config or HazardConfig()
        rows, columns = config.grid
        widths, width = [3 * NUM_PICTURES, *config.picture_widths], config.width
        stem: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            stem += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.SiLU()]
        self.stem = nn.Sequential(*stem)
        self.quantizer = FiniteScalarQuantizer(config.fsq_levels)
        self.merge = nn.Conv2d(widths[-1] + self.quantizer.code_dim, width, 1)
        self.place = nn.Parameter(torch.zeros(1, width, rows, columns))
        self.blocks = nn.Sequential(*[_Block(width) for _ in range(config.num_blocks)])
        self.narrow = nn.Conv2d(width, config.place_channels, 1)
        num_seen = config.place_channels * (rows - config.num_skipped_rows) * columns
        self.seen = nn.Sequential(nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(num_seen, width))
        self.told = nn.Sequential(nn.Linear(config.num_facts, width), nn.SiLU(), nn.Linear(width, width))
        self.cars = nn.Linear(width, CELLS[0] * CELLS[1])
        self.hazard = nn.Linear(width, len(EVENTS) * (config.num_steps + 1))
        self.join = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, width), nn.SiLU())
        nn.init.constant_(self.hazard.bias, -4.0)

    @property
    def contact_threshold(self) -> float:
        """Return the probability of contact from which on a car counts as touched."""
        return self.config.contact_threshold

    @property
    def collision_threshold(self) -> float:
        """Return the probability of collision within a second from which on one counts as near."""
        return self.config.collision_threshold

    def forward(self, inputs: HazardInputs) -> tuple[Tensor, Tensor]:
        """Return the logits (B, E, K) of the hazards at the steps from now on, not calibrated, and of other cars.

        The second, (B, cells), say in which of ``CELLS`` before the car others are. Nothing but the training needs
        them: a head that has to say where the cars are learns from fewer drives when one will be touched.
        """
        weight = self.place
        pictures_BCHW = inputs.pictures_BCHW.to(weight.dtype) / 127.5 - 1
        rows, columns = self.config.grid
        codes_BQHW = rearrange(
            self.quantizer.codes(inputs.token_ids_BS.long()), "b (h w) q -> b q h w", h=rows, w=columns
        )
        x_BCHW = torch.cat([self.stem(pictures_BCHW), codes_BQHW.to(weight.dtype)], dim=1)
        x_BCHW = self.blocks(self.merge(x_BCHW) + self.place)
        ground_BCHW = self.narrow(x_BCHW)[:, :, self.config.num_skipped_rows :]
        seen_BC = self.seen(rearrange(ground_BCHW, "b c h w -> b (c h w)"))
        told_BC = self.told(inputs.facts_BF.to(weight.dtype))
        logits = self.hazard(self.join(torch.cat([seen_BC, told_BC], dim=-1)))
        return rearrange(logits.float(), "b (e k) -> b e k", e=len(EVENTS)), self.cars(seen_BC).float()

    def calibrated(self, logits_BEK: Tensor) -> Tensor:
        """Return the hazards (B, E, K) as probabilities, after the calibration that was found on validation roads."""
        scale_E1 = logits_BEK.new_tensor(self.config.logit_scale).unsqueeze(-1)
        shift_E1 = logits_BEK.new_tensor(self.config.logit_shift).unsqueeze(-1)
        return torch.sigmoid(logits_BEK * scale_E1 + shift_E1)

    def contact(self, hazard_BEK: Tensor) -> Tensor:
        """Return the probability (B,) of contact now, from hazards."""
        return within(hazard_BEK[:, :1, : self.config.num_contact_steps])[:, 0]

    @torch.no_grad()
    def judge(self, inputs: HazardInputs) -> Hazards:
        """Return the probabilities of what was read of states.

        On a CPU row by row, to the end: what has another size may round otherwise, sigmoids too, and there a row does
        not depend on its neighbours.
        """
        indices = torch.arange(len(inputs.facts_BF), device=inputs.facts_BF.device)
        together = 1 if indices.device.type == "cpu" else len(indices)
        judged = []
        for index in indices.split(together):
            hazard_BEK = self.calibrated(self(inputs.rows(index))[0])
            contact_B1 = self.contact(hazard_BEK).unsqueeze(-1)
            judged.append(torch.cat([within(hazard_BEK), contact_B1, hazard_BEK[:, 1, :1]], dim=-1))
        collision_B, off_road_B, contact_B, is_outside_B = torch.cat(judged).unbind(-1)
        return Hazards(collision=collision_B, off_road=off_road_B, contact=contact_B, is_outside=is_outside_B)

    @torch.no_grad()
    def assess(self, state: WorldState) -> Hazards:
        """Return the probabilities (B,) of collision and off-road within a second and now."""
        return self.judge(read_state(state, self.config).to(self.place.device))


def within(hazard_BEK: Tensor) -> Tensor:
    """Return the probability (B, E) that an event happens at any of K steps, from their hazards."""
    return 1 - (1 - hazard_BEK).prod(dim=-1)


def load_hazard_head(name_or_path: str | Path = "hazard-tiny", device: str = "cpu") -> HazardHead:
    """Load a hazard head for assessing world states, in float32.

    Raises:
        InputError: unknown weights, damaged, of another kind, or of shapes that do not fit their configuration.
    """
    return load_module(name_or_path, KIND, HazardConfig, HazardHead, device=device)


def save_hazard_head(head: HazardHead, path: Path, *, facts: dict[str, Any] | None = None) -> None:
    """Write a hazard head with its calibration and thresholds."""
    save_module(head, path, kind=KIND, config=head.config, facts=facts, dtype=torch.int8)
