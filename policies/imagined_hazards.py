"""A policy's own world model: follows what is seen, and says how dangerous futures look that it imagines.

It needs nothing but what every policy is given: pictures and the car's motion. So it works in the imagined world, in
the reference world, and on recordings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from drivesim.errors import InputError
from drivesim.hazard import Hazards
from drivesim.scene.geometry import FloatArray
from drivesim.scene.types import Camera, Image
from drivesim.world_model.world_model import WorldModel
from drivesim.world_model.world_state import WorldState
from policies.road_vision import camera_for


class Assessor(Protocol):
    """What reads hazards off a world state, such as ``drivesim.hazard.HazardHead``."""

    @property
    def collision_threshold(self) -> float:
        """Return the probability from which on a collision within a second counts as near."""
        ...

    def assess(self, state: WorldState) -> Hazards:
        """Return the probabilities (B,)."""
        ...


@dataclass(kw_only=True, slots=True, frozen=True)
class Risk:
    """Probabilities of plans (P,): means over the imagined steps, so that what gets out of danger is better."""

    collision: FloatArray
    off_road: FloatArray


class HazardSight:
    """The state of one drive in a world model, and the futures that branch off it."""

    def __init__(
        self, world_model: WorldModel, head: Assessor, *, camera: Camera | None = None, seed: int | None = 0
    ) -> None:
        """Begin without a picture.

        Args:
            world_model: what imagines.
            head: what judges.
            camera: of the pictures; the front camera of their size if left out.
            seed: of the imagination; None draws one.
        """
        self._world_model, self._head, self._camera = world_model, head, camera
        self._device = next(world_model.parameters()).device
        self._generator = torch.Generator(device=self._device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._state: WorldState | None = None
        self._speed_mps = 0.0

    @property
    def collision_threshold(self) -> float:
        """Return the probability from which on a collision counts as near."""
        return self._head.collision_threshold

    def see(self, picture: Image, info: dict[str, Any]) -> Risk:
        """Take the next picture and the motion into it; return the risks (1,) of now."""
        ego = info["ego"]
        if not np.isclose(info["dt_s"] * self._world_model.rate_hz, 1.0):
            raise InputError(
                f"the weights imagine {self._world_model.rate_hz:g} frames per second, but the environment makes "
                f"{1.0 / info['dt_s']:g} steps; set rate_hz={self._world_model.rate_hz:g}"
            )
        mean_mps = ego["speed_mps"] if self._state is None else 0.5 * (self._speed_mps + ego["speed_mps"])
        twist_BA = self._tensor(np.array([[mean_mps, ego["yaw_rate_radps"]]]))
        frame = torch.from_numpy(np.ascontiguousarray(picture))[None].to(self._device)
        with torch.inference_mode():
            if self._state is None:
                camera = self._camera or camera_for(*picture.shape[:2])
                self._state = self._world_model.observe(frame[:, None], twist_BA[:, None], camera)
            else:
                outlook = self._world_model.outlook(self._state, twist_BA)
                self._state = self._world_model.shown(self._state, frame, outlook)
            hazards = self._head.assess(self._state)
        self._speed_mps = ego["speed_mps"]
        return _risk(hazards)

    def imagine(self, twists: FloatArray) -> Risk:
        """Return the risks of plans, given the mean speed and yaw rate of each step: (P, T, 2)."""
        assert self._state is not None, "see a picture first"
        state = self._state.fork(len(twists))
        risks = []
        with torch.inference_mode():
            for twist in np.moveaxis(twists, 1, 0):
                imagined = self._world_model.imagine(state, self._tensor(twist), generator=self._generator)
                state = imagined.state
                risks.append(_risk(self._head.assess(state)))
        return Risk(
            collision=np.mean([risk.collision for risk in risks], axis=0),
            off_road=np.mean([risk.off_road for risk in risks], axis=0),
        )

    def _tensor(self, values: FloatArray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._device)


def _risk(hazards: Hazards) -> Risk:
    collision = torch.maximum(hazards.collision, hazards.contact)
    return Risk(collision=collision.double().cpu().numpy(), off_road=hazards.off_road.double().cpu().numpy())
