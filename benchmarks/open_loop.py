"""The world model in the open loop: a recorded context, given twists, imagined frames, in batches.

Letters: `B` starts, `T` steps, `H W` pixels, `A` = 2 (speed in m/s, yaw rate in rad/s).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.held_out import HeldOutScene, Start
from drivesim import console
from drivesim.scene.agents import MovingAgents, agents_at
from drivesim.scene.road_map import RoadMap, ground_of, mapped
from drivesim.scene.types import Camera, DrivableArea, EgoState
from drivesim.world_model.places import Places
from drivesim.world_model.sampler import SamplerConfig
from drivesim.world_model.world_model import WorldModel

Images = NDArray[np.uint8]
Twists = NDArray[np.float32]


@dataclass(kw_only=True, slots=True)
class OpenLoop:
    """A world model with the settings under which it is measured."""

    model: WorldModel
    camera: Camera
    sampler: SamplerConfig | None = None
    batch_size: int = 8
    seed: int = 0
    has_map: bool = True  # whether the model is given the drivable area
    has_markings: bool = True  # and what is painted on it
    has_agents: bool = True  # and where others were at the start, moved on at their speed
    _maps: dict[int, tuple[DrivableArea | None, RoadMap | None]] = field(default_factory=dict, init=False)

    @property
    def num_context_frames(self) -> int:
        """Return how many recorded frames the model is shown."""
        return self.model.num_context_frames

    def imagine(
        self, scenes: Sequence[HeldOutScene], starts: Sequence[Start], twist_BTA: Twists, *, label: str
    ) -> Images:
        """Return the (B, T, H, W, 3) frames that the model imagines from each start under its twists.

        Args:
            scenes: Where the starts lie.
            starts: B of them.
            twist_BTA: (B, T, 2) speed in m/s and yaw rate in rad/s, one per imagined frame.
            label: What the progress bar says.
        """
        batches = []
        with console.progress_bar(label, len(starts)) as bar:
            for first in range(0, len(starts), self.batch_size):
                chosen = starts[first : first + self.batch_size]
                batches.append(
                    self._imagine_batch(scenes, chosen, twist_BTA[first : first + self.batch_size])
                )
                bar.advance(len(chosen))
        return np.concatenate(batches)

    def _imagine_batch(
        self, scenes: Sequence[HeldOutScene], starts: Sequence[Start], twist_BTA: Twists
    ) -> Images:
        frames_BTHWC, context_twist_BTA = context(scenes, starts, self.num_context_frames)
        cars = [scenes[start.scene_index].scene for start in starts]
        poses = [scene.ego_state(start.frame_index) for scene, start in zip(cars, starts, strict=True)]
        agents = [
            agents_at(scene, start.frame_index) if self.has_agents else None
            for scene, start in zip(cars, starts, strict=True)
        ]
        places = self.places([scene.drivable for scene in cars], poses, agents)
        return np.stack(list(self.stream(frames_BTHWC, context_twist_BTA, twist_BTA, places)), axis=1)

    def places(
        self,
        areas: Sequence[DrivableArea | None],
        poses: Sequence[EgoState],
        agents: Sequence[MovingAgents | None],
    ) -> Places | None:
        """Return what the model is told of where its cars and others are; None if that is nothing."""
        if not self.has_map and not self.has_agents:
            return None
        return Places.begin(
            [self._map_of(area) if self.has_map else None for area in areas],
            ground_of(self.camera),
            np.array([(pose.x_m, pose.y_m, pose.yaw_rad) for pose in poses]),
            agents if self.has_agents else None,
        )

    def _map_of(self, area: DrivableArea | None) -> RoadMap | None:
        """Return the map of an area, made once."""
        if id(area) not in self._maps:
            shown = area if area is None or self.has_markings else replace(area, lines=None)
            self._maps[id(area)] = (area, mapped(shown))  # holding the area keeps its id
        return self._maps[id(area)][1]

    @torch.no_grad()
    def stream(
        self, frames_BTHWC: Images, context_twist_BTA: Twists, twist_BTA: Twists, places: Places | None
    ) -> Iterator[Images]:
        """Imagine step by step what follows a context, and yield each step's frames (B, H, W, 3).

        Args:
            frames_BTHWC: The context, as many recorded frames as `num_context_frames`.
            context_twist_BTA: The motion into each of them.
            twist_BTA: The motion into each frame to be imagined.
            places: Where the cars are at the last frame of the context; None where nothing is told.
        """
        generator = torch.Generator().manual_seed(self.seed)
        state = self.model.observe(
            torch.from_numpy(frames_BTHWC), torch.from_numpy(context_twist_BTA), self.camera, places=places
        )
        for step in range(twist_BTA.shape[1]):
            step_twist_BA = torch.from_numpy(np.ascontiguousarray(twist_BTA[:, step]))
            result = self.model.imagine(state, step_twist_BA, generator=generator, sampler=self.sampler)
            state = result.state
            yield result.frames_BHWC.numpy()


def context(scenes: Sequence[HeldOutScene], starts: Sequence[Start], count: int) -> tuple[Images, Twists]:
    """Return (frames (B, count, H, W, 3), twists (B, count, 2)) that end with each start's own frame."""
    firsts = [(scenes[start.scene_index], start.frame_index - count + 1) for start in starts]
    frames = np.stack([scene.frames(first, count) for scene, first in firsts])
    return frames, np.stack([scene.twist(first, count) for scene, first in firsts])


def future(scenes: Sequence[HeldOutScene], starts: Sequence[Start], count: int) -> tuple[Images, Twists]:
    """Return (frames (B, count, H, W, 3), twists (B, count, 2)) that follow each start."""
    firsts = [(scenes[start.scene_index], start.frame_index + 1) for start in starts]
    frames = np.stack([scene.frames(first, count) for scene, first in firsts])
    return frames, np.stack([scene.twist(first, count) for scene, first in firsts])
