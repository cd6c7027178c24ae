"""The batched environment against a single one, and saving and restoring an episode: timed in turns."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import numpy as np

from benchmarks.report import Report
from benchmarks.timing import Timing, seconds_of, take_turns
from drivesim.episode import EpisodeConfig
from drivesim.hazard import HazardHead
from drivesim.scene.types import Scene
from drivesim.world_model.world_model import WorldModel
from envs.world_dreamer_drive import WorldDreamerDriveEnv
from envs.world_dreamer_vector import WorldDreamerVectorEnv

CIRCLE = np.array([0.1, 8.0], dtype=np.float32)  # never reaches the end of a route
ENDLESS = EpisodeConfig(off_road_limit=1.0, min_confidence=None)
NUM_STEPS_BEFORE = 10  # of the episode that is saved
NUM_SAVES = 30
STEPS_IN_A_ROW = 6  # of one environment before the next has its turn, as in a loop of its own


def time_batches(
    model: WorldModel, head: HazardHead | None, scene: Scene, *, batch_sizes: tuple[int, ...], num_rounds: int
) -> dict[int, Timing]:
    """Return the times of a step of the environment by the number of cars; 1 is the single environment.

    Each steps several times in a row, as in a loop of its own: a step right after one of another environment finds the
    caches full of its numbers, which costs a single car a fifth and eight cars nothing.
    """
    single = WorldDreamerDriveEnv(episode=ENDLESS, scene=scene, world_model=model, hazard_head=head)
    vectors = {
        size: WorldDreamerVectorEnv(
            num_envs=size,
            episode=ENDLESS,
            scenes=scene,
            world_model=model,
            hazard_head=head,
            max_episode_steps=None,
            autoreset_mode="Disabled",
        )
        for size in batch_sizes
        if size > 1
    }
    single.reset(seed=0)
    for vector in vectors.values():
        vector.reset(seed=0)

    def stepped(size: int) -> None:
        if size == 1:
            single.step(CIRCLE)
        elif vectors[size].is_over.any():  # a head may see a collision
            vectors[size].reset(seed=0)
        else:
            vectors[size].step(np.tile(CIRCLE, (size, 1)))

    contenders = {str(size): (lambda size=size: stepped(size)) for size in batch_sizes}
    timings = take_turns(
        "environments of several cars",
        contenders,
        num_rounds=num_rounds,
        num_warm_up=3,
        num_calls=STEPS_IN_A_ROW,
    )
    single.close()
    for vector in vectors.values():
        vector.close()
    return {int(size): timing for size, timing in timings.items()}


def add_batches(report: Report, timings: Mapping[int, Timing]) -> None:
    """Add env steps per second by the number of cars, and what a car costs among others."""
    single_s = timings[1].median_s
    for size, timing in timings.items():
        if size == 1:
            continue
        note = f"{size} cars of one gym.make_vec against one gym.make, in turns of {STEPS_IN_A_ROW} steps"
        report.add(f"env_steps_per_s_batch{size}", size / timing.median_s, note=note)
        report.add(f"per_env_cost_batch{size}_vs_batch1", timing.median_s / size / single_s)
        report.add(f"vector_speedup_batch{size}", single_s * size / timing.median_s, note=note)


def add_saving(report: Report, model: WorldModel, head: HazardHead | None, scene: Scene) -> None:
    """Add what it costs to save and to restore an episode, and how many bytes a state takes."""
    env = WorldDreamerDriveEnv(episode=ENDLESS, scene=scene, world_model=model, hazard_head=head)
    env.reset(seed=0)
    for _ in range(NUM_STEPS_BEFORE):
        env.step(CIRCLE)
    state = env.save_state()
    pickled = pickle.dumps(state)
    timings = take_turns(
        "saving and restoring",
        {"save": env.save_state, "restore": lambda: env.restore_state(state)},
        num_rounds=NUM_SAVES,
    )
    report.add("save_state_ms", 1e3 * timings["save"].median_s)
    report.add("restore_state_ms", 1e3 * timings["restore"].median_s, note="in the process that saved it")
    again_s = seconds_of(lambda: env.restore_state(pickle.loads(pickled)))
    report.add("restore_pickled_ms", 1e3 * again_s, note="drives the 10 steps again")
    report.add("saved_state_kb", len(pickled) / 1e3, note="pickled, after 10 steps")
    env.close()
