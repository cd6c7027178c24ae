"""drivesim: a driving simulator made of a learned world model, and a reference world to measure it against.

Importing this package registers ``WorldDreamer-Drive-v0`` and ``Reference-Drive-v0`` with Gymnasium, by
name only: nothing heavy (no torch, no HighwayEnv) is imported until an environment is made.
"""

from gymnasium.envs.registration import register, registry

__version__ = "0.1.0"

MAX_EPISODE_STEPS = 100

_VECTOR_ENTRY_POINTS = {"WorldDreamer-Drive-v0": "envs.world_dreamer_vector:WorldDreamerVectorEnv"}

for _env_id, _entry_point in {
    "WorldDreamer-Drive-v0": "envs.world_dreamer_drive:WorldDreamerDriveEnv",
    "Reference-Drive-v0": "envs.reference_drive:ReferenceDriveEnv",
}.items():
    if _env_id not in registry:
        register(
            id=_env_id,
            entry_point=_entry_point,
            vector_entry_point=_VECTOR_ENTRY_POINTS.get(_env_id),
            max_episode_steps=MAX_EPISODE_STEPS,
        )
