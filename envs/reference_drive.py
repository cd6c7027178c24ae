"""Reference-Drive-v0: the same contract as WorldDreamer-Drive-v0 over the ground-truth world."""

from __future__ import annotations

from typing import Any

from drivesim.errors import InputError
from drivesim.reference.simulator import ReferenceWorld, SavedWorld, WorldSpec
from drivesim.rollout import EpisodeConfig
from drivesim.scene.types import EgoState, Scene
from envs.drive_episode import DriveEpisodeEnv
from envs.ride import View


class ReferenceDriveEnv(DriveEpisodeEnv):
    """Drive the scene's own world instead of an imagined one: what the learned world is measured against.

    ## Description
    The scene must be a recording of the reference world (its log name says which road and seed). That
    world is rebuilt and driven along the recorded poses up to the start; from there the actions drive.
    Traffic reacts to the car, collisions are known, and pictures are drawn by the reference world's
    camera. Pose, route, drivable area, reward, termination and info are computed by the same code as in
    ``WorldDreamer-Drive-v0``.

    ## Action Space
    ``Box([-0.5, 0], [0.5, 20], (2,), float32)``; the ranges follow ``vehicle``.

    | Num | Action | Min | Max | Unit |
    |---|---|---|---|---|
    | 0 | road-wheel steering angle, left positive | -0.5 | 0.5 | rad |
    | 1 | target speed, reached within the car's limits (+4, -8 m/s2) | 0 | 20 | m/s |

    ## Observation Space
    ``Box(0, 255, (128, 224, 3), uint8)``: the front camera's RGB picture, drawn at reset and after each step.

    ## Rewards
    The parts and weights of ``WorldDreamer-Drive-v0``: progress (+1.0), lateral (-0.2), heading (-0.1),
    comfort (-0.1), off_road (-1.0), collision (-2.0), speeding (-0.2); a step lies in [-4.6, 1.0]. Here
    ``collision`` is measured.

    ## Starting State
    The recorded pose and speed at frame ``context_frames - 1``, or at
    ``reset(options={"start_index": k})``, the traffic having seen the recorded drive so far. The world's
    own seed is part of the scene, so ``reset(seed=)`` changes nothing: every rollout with the same actions
    is the same, bit for bit.

    ## Episode End
    Terminated: ``collision``, ``off_road`` (more than half of the footprint outside the drivable area) or
    ``goal`` (within 2 m of the route's end). Truncated: after 100 steps, or ``log_deviation`` beyond
    ``max_log_deviation_m``, if that is set. ``info["end_reason"]`` names the cause; it is "" at the limit of
    steps, which ``gym.make`` counts.

    ## Arguments
    Those of ``WorldDreamer-Drive-v0`` but ``world_model``; ``weights``, ``hazard_head``, ``device``,
    ``is_compiled`` and ``sampler`` are accepted and not used, so that one ``EpisodeConfig`` serves both.

    ## Info keys
    Those of ``WorldDreamer-Drive-v0``. ``confidence`` is always 1.0 and ``hazards`` are never valid;
    ``time_to_collision_s`` is measured, both cars going straight on at their speeds (nuPlan's measure).

    ## States
    ``save_state`` and ``restore_state`` as in ``WorldDreamer-Drive-v0``.

    ## Version History
    * v0: first version.
    """

    env_id = "Reference-Drive-v0"

    def __init__(
        self,
        *,
        episode: EpisodeConfig | None = None,
        scene: str | Scene | None = None,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Load the scene and rebuild its world; see the class docstring for the arguments.

        Raises:
            InputError: an argument does not fit, or the scene is no recording of the reference world.
        """
        super().__init__(episode=episode, scene=scene, render_mode=render_mode, **settings)
        self._world: ReferenceWorld | None = ReferenceWorld(
            self._spec(), camera=self.scene.camera, vehicle=self.episode.vehicle, rate_hz=self.scene.rate_hz
        )

    def _spec(self) -> WorldSpec:
        try:
            return WorldSpec.from_log_name(self.scene.log_name)
        except ValueError as error:
            raise InputError(
                f"scene {self.scene.name!r} is no recording of the reference world (its log is "
                f"{self.scene.log_name!r}); choose one that `drivesim data synth` wrote, "
                "or take WorldDreamer-Drive-v0"
            ) from error

    def _begin_world(self, start_index: int, seed: int) -> View:
        del seed  # the world's own seed is part of the scene
        world = self._driven
        world.reset()
        for passed in range(1, start_index + 1):
            world.advance(self.log.ego_state(passed))
        return _view(world)

    def _advance_world(self, previous: EgoState, current: EgoState) -> View:
        self._driven.advance(current)
        return _view(self._driven)

    def _saved_world(self) -> SavedWorld:
        return self._driven.saved()

    def _restore_world(self, saved: SavedWorld) -> None:
        self._driven.restore(saved)

    def _free_world(self) -> None:
        self._world = None

    @property
    def _driven(self) -> ReferenceWorld:
        assert self._world is not None, "the world was freed"
        return self._world


def _view(world: ReferenceWorld) -> View:
    return View(
        frame=world.render(),
        is_collision=bool(world.is_collision),
        time_to_collision_s=world.time_to_collision_s,
    )
