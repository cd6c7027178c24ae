"""The hazard head that the closed-loop benchmarks drive with: chosen, noted, and missed aloud."""

import pytest

from benchmarks import closed_loop, trust
from benchmarks.closed_loop_episodes import DriveSettings, World
from benchmarks.hazard_choice import warn_without_head
from benchmarks.trust_episodes import _kept
from drivesim.errors import InputError
from drivesim.rollout import EpisodeConfig

COMMON = ["--policies", "pure-pursuit", "blind", "--scenes", "scene-2001", "--out", "x.json"]


@pytest.mark.parametrize(
    ("arguments", "head"), [([], "hazard-tiny"), (["--hazard-head", ""], ""), (["--hazard-head", "h"], "h")]
)
def test_the_head_reaches_the_episodes_and_the_facts(arguments, head, monkeypatch):
    for module in (closed_loop, trust):
        monkeypatch.setattr(module, "contents_of_models", lambda episode: {})
    options = closed_loop.parse([*COMMON, *arguments])
    assert closed_loop.configuration_of(options)["hazard_head"] == head
    assert closed_loop.settings_of(options).episode.hazard_head == (head if arguments else None)
    assert trust._settings(trust.parse([*COMMON, *arguments])).episode.hazard_head == (
        head if arguments else None
    )
    options = closed_loop.parse([*COMMON, *arguments, "--env", "reference"])
    assert closed_loop.configuration_of(options)["hazard_head"] is None


@pytest.mark.parametrize("command", [closed_loop, trust])
def test_a_head_that_does_not_exist_is_bad_input(command, tmp_path):
    with pytest.raises(InputError, match="no weights named 'hazard-tinny'"):
        command.main([*COMMON[:-1], str(tmp_path / "out.json"), "--hazard-head", "hazard-tinny"])


def test_what_cannot_be_measured_is_said(capfd):
    def said(episode, *, also_reference):
        warn_without_head(episode, also_reference=also_reference)
        return " ".join(capfd.readouterr().err.split())

    assert said(EpisodeConfig(), also_reference=True) == ""
    assert "in the reference world only" in said(EpisodeConfig(hazard_head=""), also_reference=True)
    own = said(EpisodeConfig(weights="own.safetensors"), also_reference=False)
    assert "own.safetensors: NC (collisions) and TTC (time to collision) cannot be measured" in own
    assert "--hazard-head" in own


def test_drives_with_another_head_are_not_lent(tmp_path):
    def opens(head):
        episode = EpisodeConfig(horizon=3, hazard_head=head)
        return _kept(tmp_path, DriveSettings(world=World.WORLDDREAMER, episode=episode), [])

    with opens("hazard-tiny") as kept:
        (kept.path / "episodes").mkdir()
        (kept.path / "episodes" / "one.json").write_text("{}")
    with pytest.raises(InputError, match=r"another hazard_head \(hazard-tiny, not \).*--episodes"), opens(""):
        pass
    with opens(None):
        pass  # that of the weights is the same one
