"""WorldDreamer-Drive-v0: drive in imagined pictures; the ego motion is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drivesim.episode import sampler_with
from drivesim.errors import InputError
from drivesim.rollout import EpisodeConfig
from drivesim.scene.road_map import ground_of, mapped
from drivesim.scene.types import EgoState, Scene
from drivesim.world_model.places import Places
from drivesim.world_model.pretrained import load_world_model
from drivesim.world_model.world_model import WorldModel, WorldState
from envs.drive_episode import DriveEpisodeEnv, View


class WorldDreamerDriveEnv(DriveEpisodeEnv):
    """Steer a car through camera pictures that a world model imagines, starting from a recorded scene.

    ## Description
    A recorded scene gives the first ``context_frames`` pictures and the motion between them. From then on
    every picture is imagined by the world model under the motion that the actions cause, with the map of the
    drivable area laid out before the camera where the scene has one. The car itself is
    a kinematic bicycle that is integrated exactly, so its pose, the route, the drivable area and the
    comfort of the ride are always measured and never guessed from pictures. One step lasts ``1 / rate_hz``
    = 1/6 s.

    ## Action Space
    ``Box([-0.5, 0], [0.5, 20], (2,), float32)``; the ranges follow ``vehicle``.

    | Num | Action | Min | Max | Unit |
    |---|---|---|---|---|
    | 0 | road-wheel steering angle, left positive | -0.5 | 0.5 | rad |
    | 1 | target speed, reached within the car's limits (+4, -8 m/s2) | 0 | 20 | m/s |

    An action that is not finite, of another shape or more than 1e-5 out of range raises ``InputError``.
    Learners like a symmetric range:
    ``gymnasium.wrappers.RescaleAction(env, np.float32([-1, -1]), np.float32([1, 1]))``.

    ## Observation Space
    ``Box(0, 255, (128, 224, 3), uint8)``: the front camera's RGB picture. At reset it is the recorded one.

    ## Rewards
    A weighted sum, its parts in ``info["rewards"]``; a part that cannot be measured is 0. Weights:
    ``reward``.

    | Part | Per step | Weight |
    |---|---|---|
    | progress | metres gained along the route / 3.33, within [-1, 1] | +1.0 |
    | lateral | distance from the route / 2 m, at most 1 | -0.2 |
    | heading | angle to the route / 0.5 rad, at most 1 | -0.1 |
    | comfort | share of six nuPlan comfort limits that are broken | -0.1 |
    | off_road | share of the car's footprint outside the drivable area | -1.0 |
    | collision | 1 while touching another | -2.0 |

    A step's reward lies in [-4.4, 1.0] with the default weights (``RewardConfig.bounds``).

    ## Starting State
    The recorded pose and speed at frame ``context_frames - 1``, or at ``reset(options={"start_index": k})``.
    The seed draws the numbers that the sampler uses; equal seeds and actions give equal pictures, bit for
    bit, on one machine with one number of threads.

    ## Episode End
    Terminated: ``off_road`` (more than ``off_road_limit`` = half of the footprint outside the drivable
    area) or ``goal`` (within 2 m of the route's end); ``collision`` where it can be measured, which this
    world cannot yet.
    Truncated: after 100 steps (``gym.make(..., max_episode_steps=...)``), or ``log_deviation`` when
    further than ``max_log_deviation_m`` from the recorded car, if that is set. ``info["end_reason"]``
    names the cause.

    ## Arguments
    ``gym.make("WorldDreamer-Drive-v0", scene=..., ...)``:

    | Name | Default | Meaning |
    |---|---|---|
    | scene | None | name of a scene, or a ``drivesim.scene.types.Scene``; None is the first of the data set |
    | dataroot, version | None, "v1.0-mini" | a nuScenes data set; None is the embedded one |
    | weights | "drive-tiny" | shipped weights by name, or a path |
    | world_model | None | a loaded WorldModel instead of ``weights`` |
    | device | "cpu" | where the world model runs |
    | context_frames | 4 | recorded frames before the first imagined one |
    | max_log_deviation_m | None | see Episode End |
    | off_road_limit | 0.5 | see Episode End |
    | uses_map | True | whether the model is shown the scene's drivable area, so that the road stays on the map |
    | sampler | those of the weights | ``SamplerSettings``: replaces what it names; a ``SamplerConfig``, all |
    | reward, vehicle | defaults | ``RewardConfig``, ``VehicleConfig`` |
    | rate_hz | 6.0 | steps per second: those of the weights |
    | width_px, height_px | 224, 128 | size of the pictures: those of the weights |
    | episode | None | all of these at once, as an ``EpisodeConfig`` |
    | render_mode | None | "rgb_array", or "human" for a window |

    ## Info keys
    | Key | Meaning |
    |---|---|
    | ego | x_m, y_m, yaw_rad (global, rear axle), speed_mps, yaw_rate_radps, accel_mps2, steering_rad |
    | rewards | parts of the reward by name; they sum to it |
    | metrics | name -> {value, is_valid}: progress_m, route_completion, lateral_error_m, heading_error_rad, |
    |  | speed_mps, comfort, off_road, collision, log_deviation_m |
    | confidence | the model's confidence in the picture, in (0, 1]; 1.0 at reset |
    | route_ahead_m | (20, 2) float32: the route every 2 m from 2 to 40 m ahead, ego frame |
    | command | "follow", "left" or "right": what the route asks within 25 m |
    | log_action | (2,) float32: the action that leads to the next recorded frame; zeros after the log |
    | is_log_valid | whether ``log_action`` is one, i.e. the recording goes on |
    | log_index | recorded frame of the same time; counts on after the log |
    | vehicle | the fields of ``VehicleConfig``: sizes in m and limits of the car that is driven |
    | dt_s | length of a step in s |
    | scene, end_reason | name of the scene; why the episode ended, "" while it goes on |

    ## Version History
    * v0: first version.
    """

    def __init__(
        self,
        *,
        episode: EpisodeConfig | None = None,
        scene: str | Scene | None = None,
        world_model: WorldModel | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load scene and weights; see the class docstring for the arguments.

        Raises:
            InputError: an argument does not fit, or scene and weights do not fit each other.
        """
        super().__init__(episode=episode, scene=scene, render_mode=render_mode, **settings)
        self._device = _usable_device(self.episode.device)
        if world_model is None:
            world_model = load_world_model(self.episode.weights, device=self.episode.device)
        self._require_fit(world_model)
        self._world_model: WorldModel | None = world_model
        self.sampler = sampler_with(world_model.config.sampler, self.episode.sampler)
        self._state: WorldState | None = None
        self._map = mapped(self.scene.drivable) if self.episode.uses_map else None
        self._generator = torch.Generator(device=self._device)

    def _require_fit(self, world_model: WorldModel) -> None:
        if not np.isclose(world_model.rate_hz, self.scene.rate_hz):
            raise InputError(
                f"the weights imagine {world_model.rate_hz:g} frames per second but scene "
                f"{self.scene.name!r} is read at {self.scene.rate_hz:g}; set rate_hz={world_model.rate_hz:g}"
            )
        drawn, camera = world_model.tokenizer.config, self.scene.camera
        if (drawn.width_px, drawn.height_px) != (camera.width_px, camera.height_px):
            raise InputError(
                f"the weights draw pictures of {drawn.width_px}x{drawn.height_px} but scene "
                f"{self.scene.name!r} is read at {camera.width_px}x{camera.height_px}; "
                f"set width_px={drawn.width_px} and height_px={drawn.height_px}"
            )
        if self.episode.context_frames < world_model.num_context_frames:
            raise InputError(
                f"the weights need a context of {world_model.num_context_frames} frames, got "
                f"context_frames={self.episode.context_frames}; raise it"
            )

    def _begin_world(self, start_index: int) -> View:
        assert self._world_model is not None
        self._generator.manual_seed(int(self.np_random.integers(2**63 - 1)))
        context = range(start_index - self.episode.context_frames + 1, start_index + 1)
        frames = np.stack([self.scene.frames[index] for index in context])
        twist = np.stack([self.scene.speed_mps[context], self.scene.yaw_rate_radps[context]], axis=-1)
        with torch.inference_mode():
            self._state = self._world_model.observe(
                torch.from_numpy(frames)[None].to(self._device),
                self._tensor(twist),
                self.scene.camera,
                places=self._places(self.scene.ego_state(start_index)),
            )
        return View(frame=frames[-1])

    def _advance_world(self, previous: EgoState, current: EgoState) -> View:
        assert self._world_model is not None
        assert self._state is not None
        mean_speed_mps = 0.5 * (previous.speed_mps + current.speed_mps)
        twist = np.array([mean_speed_mps, current.yaw_rate_radps])
        with torch.inference_mode():
            imagined = self._world_model.imagine(
                self._state, self._tensor(twist), generator=self._generator, sampler=self.sampler
            )
        self._state = imagined.state
        return View(frame=imagined.frames_BHWC[0].cpu().numpy(), confidence=float(imagined.confidence_B[0]))

    def _places(self, ego: EgoState) -> Places | None:
        """Return where the car is on the scene's map; None without one."""
        if self._map is None:
            return None
        pose = np.array([[ego.x_m, ego.y_m, ego.yaw_rad]])
        return Places(maps=(self._map,), ground=ground_of(self.scene.camera), pose=pose)

    def _free_world(self) -> None:
        self._world_model = self._state = None

    def _tensor(self, values: NDArray[np.float64]) -> torch.Tensor:
        """Return values with a batch axis of one in front, where the world model is."""
        return torch.from_numpy(values.astype(np.float32))[None].to(self._device)


def _usable_device(name: str) -> torch.device:
    """Return the device of that name, after it has held a tensor.

    Raises:
        InputError: PyTorch knows no such device, or has none here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"device {name!r} cannot be used ({reason}); name another, such as cpu") from error
