"""Made-up episodes in two worlds."""

import numpy as np

from benchmarks.trust_pairs import EpisodePair, WorldEpisode

NUM_STEPS = 20
PARTS = ("progress", "lateral", "heading", "comfort", "off_road", "collision")


def episode(
    score, *, num_steps=NUM_STEPS, end_reason="time_limit", rewards=0.1, failure="", drift_m=0.0, **scores
):
    if failure:
        return WorldEpisode(
            scores={}, rewards={}, path_m=np.zeros((0, 2)), end_reason="failed", failure=failure
        )
    known = {
        "hd_score": score**2,
        "route_completion": score,
        "off_road_rate": 1 - score,
        "comfort": 0.5 + score / 2,
        "collision": 0.0,
        "time_to_collision": 1.0,
    }
    path_m = np.arange(num_steps)[:, None] * np.array([1.0, drift_m])
    return WorldEpisode(
        scores={"pdms": score} | known | scores,
        rewards={part: np.full(num_steps, rewards) for part in PARTS},
        path_m=path_m,
        score_parts="NC DAC EP TTC C",
        end_reason=end_reason,
    )


def pair(reference, imagined, *, policy="good", scene="here", seed=0):
    as_episode = [x if isinstance(x, WorldEpisode) else episode(x) for x in (reference, imagined)]
    return EpisodePair(policy=policy, scene=scene, seed=seed, reference=as_episode[0], imagined=as_episode[1])


def many_pairs(*, noise=0.02, num_policies=5, num_scenes=6, num_seeds=2):
    """Policies of evenly spread skill; a bad one leaves the road, in the imagined world two steps later."""
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(num_policies):
        for scene in range(num_scenes):
            for seed in range(num_seeds):
                skill = 0.1 + 0.8 * index / (num_policies - 1) + rng.normal(0, 0.03)
                is_bad = index == 0
                worlds = [
                    episode(
                        float(np.clip(skill + late / 2 * rng.normal(0, noise), 0, 1)),
                        num_steps=8 + late if is_bad else NUM_STEPS,
                        end_reason="off_road" if is_bad else "time_limit",
                        rewards=0.1 + 0.05 * late,
                    )
                    for late in (0, 2)
                ]
                pairs.append(pair(*worlds, policy=f"policy-{index}", scene=f"scene-{scene}", seed=seed))
    return pairs
