"""Several cars in imagined pictures at once: one pass of the world model for all rows.

On a CPU a row is the same, bit for bit, whether it is imagined alone or beside others: each draws from a generator of
its own, nothing in the model mixes rows, and products of bfloat16 matrices do not depend on how many rows they have.
Those of float32 do, so there the rows are imagined one after another. On an accelerator a row may differ by
rounding, and so may one of a compiled model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drivesim.checkpoint import tensor_hash, usable_device
from drivesim.episode import EpisodeConfig, sampler_with
from drivesim.errors import InputError
from drivesim.hazard import HazardHead
from drivesim.metrics.closeness import HORIZON_S
from drivesim.scene.agents import agents_at
from drivesim.scene.geometry import FloatArray
from drivesim.scene.road_map import RoadMap, ground_of, mapped
from drivesim.scene.types import EgoState, Scene
from drivesim.world_model.compiled import is_compiled
from drivesim.world_model.places import Places
from drivesim.world_model.world_model import Imagined, WorldModel
from drivesim.world_model.world_state import WorldState, joined
from envs.ride import View

OUTSIDE = 0.5  # probability of being off the road from which on the car counts as such


@dataclass(kw_only=True, slots=True, frozen=True)
class SavedRow:
    """A row as it was: its state, shared and never changed, and where its chance stood."""

    state: WorldState
    chance: Tensor


class ImaginedWorlds:
    """Rows of imagined worlds, one scene each. Rows begin and end; those between are imagined together."""

    def __init__(
        self,
        episode: EpisodeConfig,
        scenes: Sequence[Scene],
        world_model: WorldModel,
        hazard_head: HazardHead | None = None,
    ) -> None:
        """Join scenes and weights.

        Args:
            episode: settings of all rows.
            scenes: one for each row.
            world_model: imagines.
            hazard_head: foresees collisions and leaving the road; None leaves that out.

        Raises:
            InputError: scenes and weights do not fit each other, or the device cannot be used.
        """
        self.episode, self.scenes = episode, list(scenes)
        for scene in self.scenes:
            _require_fit(world_model, scene, episode)
        self.device = usable_device(episode.device)
        self.sampler = sampler_with(world_model.config.sampler, episode.sampler)
        self._world_model: WorldModel | None = world_model
        self._hazard_head = hazard_head
        self._maps = _maps_of(self.scenes) if episode.uses_map else [None] * len(self.scenes)
        has_agents = episode.uses_agents and any(scene.agents is not None for scene in self.scenes)
        self._is_told = has_agents or any(self._maps)
        self._generators = [torch.Generator(device=self.device) for _ in self.scenes]
        self._state: WorldState | None = None
        self.rows: list[int] = []  # those that go on, in the order of the state

    @cached_property
    def fingerprint(self) -> str:
        """Return a short hash of the weights and settings that decide what is imagined."""
        models = [model for model in (self.world_model, self._hazard_head) if model is not None]
        hashes = [tensor_hash({name: v.cpu() for name, v in model.state_dict().items()}) for model in models]
        rounding = " compiled" if is_compiled(self.world_model) else ""
        return hashlib.sha256(f"{self.sampler} {hashes}{rounding}".encode()).hexdigest()[:12]

    @property
    def world_model(self) -> WorldModel:
        """Return the model that imagines."""
        assert self._world_model is not None, "these worlds were freed"
        return self._world_model

    def begin(self, rows: Sequence[int], start_indices: Sequence[int], seeds: Sequence[int]) -> list[View]:
        """Show rows the recorded frames up to their starts; returns their views in that order.

        Raises:
            InputError: a picture or an annotation of a scene cannot be read; all rows are then as they were.
        """
        egos = [self.scenes[row].ego_state(start) for row, start in zip(rows, start_indices, strict=True)]
        scenes, count = [self.scenes[row] for row in rows], self.episode.context_frames
        spans = [range(start - count + 1, start + 1) for start in start_indices]
        # Files are read first: what cannot be read raises before anything is changed.
        places = self._places(rows, egos, start_indices)
        frames = np.stack(
            [[scene.frames[i] for i in span] for scene, span in zip(scenes, spans, strict=True)]
        )
        self.end(rows)
        for row, seed in zip(rows, seeds, strict=True):
            self._generators[row].manual_seed(seed)
        twist = np.stack(
            [
                np.stack([scene.speed_mps[span], scene.yaw_rate_radps[span]], axis=-1)
                for scene, span in zip(scenes, spans, strict=True)
            ]
        )
        with torch.inference_mode():
            parts = [
                self.world_model.observe(
                    torch.from_numpy(frames[part]).to(self.device),
                    self._tensor(twist[part]),
                    scenes[0].camera,
                    places=None if places is None else places.rows(part),
                )
                for part in self._parts(len(rows))
            ]
            fresh = _together(parts)
            self._append(rows, fresh)
            return self._views(fresh, torch.from_numpy(frames[:, -1]), np.ones(len(rows), np.float32))

    def advance(self, steps: Sequence[tuple[EgoState, EgoState]]) -> list[View]:
        """Imagine all rows that go on one step further; returns their views.

        Args:
            steps: the ego before and after the step, in the order of ``rows``.
        """
        assert self._state is not None
        twist = [
            (0.5 * (before.speed_mps + after.speed_mps), after.yaw_rate_radps) for before, after in steps
        ]
        with torch.inference_mode():
            parts = [self._imagined(part, twist) for part in self._parts(len(self.rows))]
            self._state = _together([part.state for part in parts])
            frames = torch.cat([part.frames_BHWC for part in parts])
            confidence = torch.cat([part.confidence_B for part in parts]).numpy()
            return self._views(self._state, frames, confidence)

    def _imagined(self, places: list[int], twist: list[tuple[float, float]]) -> Imagined:
        assert self._state is not None
        is_all = len(places) == len(self.rows)
        return self.world_model.imagine(
            self._state if is_all else self._state.rows(places),
            self._tensor(np.array([twist[place] for place in places])),
            generator=[self._generators[self.rows[place]] for place in places],
            sampler=self.sampler,
        )

    def _parts(self, count: int) -> list[list[int]]:
        """Return which of ``count`` rows go through the model together."""
        if self.world_model.is_best_row_by_row:
            return [[place] for place in range(count)]
        return [list(range(count))]

    def end(self, rows: Sequence[int]) -> None:
        """Let go of rows; those that do not go on are passed over."""
        kept = [place for place, row in enumerate(self.rows) if row not in set(rows)]
        if len(kept) == len(self.rows):
            return
        with torch.inference_mode():
            self._state = self._state.rows(kept) if self._state is not None and kept else None
        self.rows = [self.rows[place] for place in kept]

    def save(self, row: int) -> SavedRow:
        """Return a row as it is."""
        assert self._state is not None
        with torch.inference_mode():
            state = self._state if self.rows == [row] else self._state.rows([self.rows.index(row)])
        return SavedRow(state=state, chance=self._generators[row].get_state())

    def restore(self, row: int, saved: SavedRow) -> None:
        """Put a row where it was saved."""
        self.end([row])
        self._generators[row].set_state(saved.chance)
        with torch.inference_mode():
            self._append([row], saved.state)

    def free(self) -> None:
        """Let go of the model and all rows."""
        self._world_model = self._hazard_head = self._state = None
        self.rows = []

    def _append(self, rows: Sequence[int], fresh: WorldState) -> None:
        self._state = _together([fresh] if self._state is None else [self._state, fresh])
        self.rows += rows

    def _views(self, state: WorldState, frames: Tensor, confidence: NDArray[np.float32]) -> list[View]:
        pictures = frames.numpy()
        if self._hazard_head is None:
            pairs = zip(pictures, confidence, strict=True)
            return [View(frame=frame, confidence=float(sure)) for frame, sure in pairs]
        head, hazards = self._hazard_head, self._hazard_head.assess(state)
        chances = (hazards.collision, hazards.off_road, hazards.contact, hazards.is_outside)
        columns = [chance.tolist() for chance in chances]
        return [
            View(
                frame=frame,
                confidence=float(sure),
                is_collision=contact > head.contact_threshold,
                time_to_collision_s=0.0 if collision > head.collision_threshold else HORIZON_S,
                is_off_road=outside > OUTSIDE,
                hazards={"collision": collision, "off_road": off_road},
            )
            for frame, sure, collision, off_road, contact, outside in zip(
                pictures, confidence, *columns, strict=True
            )
        ]

    def _places(
        self, rows: Sequence[int], egos: Sequence[EgoState], start_indices: Sequence[int]
    ) -> Places | None:
        """Return where cars and others are on their maps, as of the start; None where no scene knows of either."""
        if not self._is_told:
            return None
        pose = np.array([[ego.x_m, ego.y_m, ego.yaw_rad] for ego in egos])
        maps = [self._maps[row] for row in rows]
        agents = [
            agents_at(self.scenes[row], start) if self.episode.uses_agents else None
            for row, start in zip(rows, start_indices, strict=True)
        ]
        return Places.begin(maps, ground_of(self.scenes[rows[0]].camera), pose, agents)

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)


def _together(parts: list[WorldState]) -> WorldState:
    return parts[0] if len(parts) == 1 else joined(parts)


def _maps_of(scenes: Sequence[Scene]) -> list[RoadMap | None]:
    """Return the map of every scene; scenes that share an area share its map."""
    made: dict[int, RoadMap | None] = {}
    for scene in scenes:
        if id(scene.drivable) not in made:
            made[id(scene.drivable)] = mapped(scene.drivable)
    return [made[id(scene.drivable)] for scene in scenes]


def _require_fit(world_model: WorldModel, scene: Scene, episode: EpisodeConfig) -> None:
    if not np.isclose(world_model.rate_hz, scene.rate_hz):
        raise InputError(
            f"the weights imagine {world_model.rate_hz:g} frames per second but scene "
            f"{scene.name!r} is read at {scene.rate_hz:g}; set rate_hz={world_model.rate_hz:g}"
        )
    drawn, camera = world_model.tokenizer.config, scene.camera
    if (drawn.width_px, drawn.height_px) != (camera.width_px, camera.height_px):
        raise InputError(
            f"the weights draw pictures of {drawn.width_px}x{drawn.height_px} but scene "
            f"{scene.name!r} is read at {camera.width_px}x{camera.height_px}; "
            f"set width_px={drawn.width_px} and height_px={drawn.height_px}"
        )
    if episode.context_frames < world_model.num_context_frames:
        raise InputError(
            f"the weights need a context of {world_model.num_context_frames} frames, got "
            f"context_frames={episode.context_frames}; raise it"
        )
