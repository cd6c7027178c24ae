"""WorldDreamer-Drive-v0: drive in imagined pictures; the ego motion is exact."""

from __future__ import annotations

from typing import Any

from drivesim.hazard import HazardHead
from drivesim.rollout import EpisodeConfig
from drivesim.scene.types import EgoState, Scene
from drivesim.shared_models import models_of
from drivesim.world_model.world_model import WorldModel
from envs.drive_episode import DriveEpisodeEnv
from envs.imagined_worlds import ImaginedWorlds, SavedRow
from envs.ride import View


class WorldDreamerDriveEnv(DriveEpisodeEnv):
    """Steer a car through camera pictures that a world model imagines, starting from a recorded scene.

    ## Description
    A recorded scene gives the first ``context_frames`` pictures and the motion between them. From then on
    every picture is imagined by the world model under the motion that the actions cause, with the map of the
    road and its markings laid out before the camera where the scene has one. The car itself is
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
    | speeding | metres per second above ``speed_limit_mps`` / 5, at most 1; 0 without a limit | -0.2 |

    A step's reward lies in [-4.6, 1.0] with the default weights (``RewardConfig.bounds``).

    ## Starting State
    The recorded pose and speed at frame ``context_frames - 1``, or at ``reset(options={"start_index": k})``.
    The seed draws the numbers that the sampler uses; equal seeds and actions give equal pictures, bit for
    bit, on one machine with one number of threads.

    ## Episode End
    Terminated: ``off_road`` (more than ``off_road_limit`` = half of the footprint outside the drivable
    area), ``goal`` (within 2 m of the route's end), or ``collision``: other cars are in the picture only,
    so the hazard head judges whether the car touches one. Where a scene has no map, it judges off-road too.
    Truncated: after 100 steps (``gym.make(..., max_episode_steps=...)``); ``log_deviation`` when
    further than ``max_log_deviation_m`` from the recorded car, if that is set; ``low_confidence`` when the
    model's confidence stays below ``min_confidence`` for ``max_unsure_steps`` steps: it no longer knows.
    ``info["end_reason"]`` names the cause; it is "" at the limit of steps, which ``gym.make`` counts.

    ## States
    ``env.unwrapped.save_state()`` returns the episode at this instant, ``restore_state(state)`` goes back to
    it, any number of times: the same actions then give the same pictures, bit for bit. A pickled state is a
    kilobyte or two; restoring it drives the episode again, which takes as long as the episode took.

    ## Arguments
    ``gym.make("WorldDreamer-Drive-v0", scene=..., ...)``:

    | Name | Default | Meaning |
    |---|---|---|
    | scene | None | name of a scene, or a ``drivesim.scene.types.Scene``; None is the first of the data set |
    | dataroot, version | None, "v1.0-mini" | a nuScenes data set; None is the embedded one |
    | camera | "CAM_FRONT" | whose pictures the episode starts from; the shipped weights know front cameras |
    | weights | "drive-tiny" | shipped weights by name, or a path |
    | world_model | None | a loaded WorldModel instead of ``weights`` |
    | hazard_head | None | a hazard head by name, path or loaded; "" is none; None is the one shipped for ``weights``, |
    |  |  | which a ``world_model`` or other weights do not have |
    | device | "cpu" | where the world model runs |
    | is_compiled | False | whether the transformer of ``weights`` runs through torch.compile: it takes a minute or |
    |  |  | more at the first steps and gains little on a CPU; needs a C++ compiler, or Triton on CUDA |
    | context_frames | 4 | recorded frames before the first imagined one |
    | max_log_deviation_m | None | see Episode End |
    | off_road_limit | 0.5 | see Episode End |
    | min_confidence, max_unsure_steps | 0.005, 6 | see Episode End; None never ends an episode so |
    | speed_limit_mps | None | what ``speeding`` is measured by |
    | uses_map | True | whether the model is shown the scene's map, so that the road and its lines stay on it |
    | uses_agents | True | whether it is shown where other cars were at the start, moved on at the speed they had |
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
    |  | speed_mps, comfort, off_road, collision, time_to_collision_s, speed_over_limit_mps, log_deviation_m |
    | hazards | name -> {value, is_valid}: probability of "collision" and "off_road" within the next second |
    | confidence | mean probability of the drawn tokens, in (0, 1]; 1.0 at reset. It falls as the recording recedes: |
    |  | with drive-tiny about 0.4 at the first step, 0.14 after 2 s, 0.05 after 4 s, 0.02 after 10 s |
    | route_ahead_m | (20, 2) float32: the route every 2 m from 2 to 40 m ahead, ego frame |
    | command | "follow", "left" or "right": what the route asks within 25 m |
    | log_action | (2,) float32: the action that leads to the next recorded frame; zeros after the log |
    | is_log_valid | whether ``log_action`` is one, i.e. the recording goes on |
    | log_index | recorded frame of the same time; counts on after the log |
    | vehicle | the fields of ``VehicleConfig``: sizes in m and limits of the car that is driven |
    | dt_s | length of a step in s |
    | scene, end_reason | name of the scene; why the episode ended, "" while it goes on and at the limit of steps |

    ``time_to_collision_s`` is measured to 3 s. Here it is 0 where the hazard head foresees a collision within a second,
    else 3; the reference world measures it.

    ## Batches
    ``gym.make_vec("WorldDreamer-Drive-v0", num_envs=N)``: see ``envs.world_dreamer_vector``.

    ## Version History
    * v0: first version.
    """

    env_id = "WorldDreamer-Drive-v0"

    def __init__(
        self,
        *,
        episode: EpisodeConfig | None = None,
        scene: str | Scene | None = None,
        world_model: WorldModel | None = None,
        hazard_head: HazardHead | str | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load scene and weights; see the class docstring for the arguments.

        Raises:
            InputError: an argument does not fit, or scene and weights do not fit each other.
        """
        if isinstance(hazard_head, str):
            settings["hazard_head"] = hazard_head
        super().__init__(episode=episode, scene=scene, render_mode=render_mode, **settings)
        self.worlds = ImaginedWorlds(
            self.episode, [self.scene], *models_of(self.episode, world_model, hazard_head)
        )

    def _begin_world(self, start_index: int, seed: int) -> View:
        return self.worlds.begin([0], [start_index], [seed])[0]

    def _advance_world(self, previous: EgoState, current: EgoState) -> View:
        return self.worlds.advance([(previous, current)])[0]

    def _saved_world(self) -> SavedRow:
        return self.worlds.save(0)

    def _restore_world(self, saved: SavedRow) -> None:
        self.worlds.restore(0, saved)

    def _models(self) -> str:
        return self.worlds.fingerprint

    def _free_world(self) -> None:
        self.worlds.free()
