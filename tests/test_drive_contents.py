"""Files that change under the same name: their drives are not taken for those of the new contents."""

import json

import numpy as np
import pytest

from benchmarks.closed_loop_episodes import DriveSettings, World, run_episodes
from benchmarks.closed_loop_folder import opened
from benchmarks.drive_contents import CONTENTS, contents_of_models, contents_of_policies, policy_contents
from benchmarks.trust_episodes import _driven, _kept, jobs_for
from drivesim import checkpoint
from drivesim.errors import InputError
from drivesim.rollout import EpisodeConfig

STRAIGHT = """
import numpy as np


class Straight:
    def select_action(self, observation, info):
        return np.array([0.0, 6.0], dtype=np.float32)
"""


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "straight.py"
    path.write_text(STRAIGHT)
    return path


def test_a_hash_follows_the_file_and_not_its_name(policy, tmp_path):
    before = policy_contents(str(policy))
    assert len(before) == 12
    assert policy_contents(f"{policy}:Straight") == before
    (tmp_path / "copy.py").write_text(STRAIGHT)
    assert policy_contents(str(tmp_path / "copy.py")) == before
    policy.write_text(STRAIGHT.replace("6.0", "7.0"))
    assert policy_contents(str(policy)) != before


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Return a folder of shipped weights in which a few small files stand for them."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("drive-tiny", "hazard-tiny", "driver-tiny", "other-tiny"):
        (folder / f"{name}.safetensors").write_text(name)
    monkeypatch.setattr(checkpoint, "WEIGHTS_FOLDER", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "taken", "not_taken"),
    [
        ("cem", ["drive-tiny", "hazard-tiny"], ["driver-tiny"]),
        ("policies.cem:MppiPolicy", ["drive-tiny", "hazard-tiny"], ["driver-tiny"]),
        ("mppi@weights=other-tiny", ["other-tiny", "hazard-tiny"], ["drive-tiny"]),
        ("behavior-cloning@accel_mps2=1", ["driver-tiny"], ["drive-tiny"]),
    ],
)
def test_weights_that_a_policy_takes_unless_told_otherwise_count(name, taken, not_taken, weights):
    for file in taken:
        before = policy_contents(name)
        (weights / f"{file}.safetensors").write_text("trained anew")
        assert policy_contents(name) != before
    for file in not_taken:
        before = policy_contents(name)
        (weights / f"{file}.safetensors").write_text("trained anew")
        assert policy_contents(name) == before


@pytest.mark.parametrize(
    "text",
    [
        "class Mine:\n    def __init__(self, weights='drive-tiny'):\n        pass\n",
        "from policies.cem import CemPolicy\n\n\nclass Mine(CemPolicy):\n    pass\n",
        'raise SystemExit("never run")\nmodel = load_world_model("drive-tiny")\n',
    ],
)
def test_shipped_weights_that_a_file_of_the_user_names_count(text, weights, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    before = policy_contents(str(tmp_path / "mine.py"))
    (weights / "other-tiny.safetensors").write_text("trained anew")
    assert policy_contents(str(tmp_path / "mine.py")) == before
    (weights / "drive-tiny.safetensors").write_text("trained anew")
    assert policy_contents(str(tmp_path / "mine.py")) != before


def test_policies_have_one_where_they_come_from_files_or_take_weights():
    assert list(contents_of_policies(["idm", "cem", "behavior-cloning"])) == ["cem", "behavior-cloning"]
    assert policy_contents("policies.no_such:Mine") == ""
    found = contents_of_policies(["pure-pursuit", "bad_policies:Nan", "policies.constant:ConstantPolicy"])
    assert list(found) == ["bad_policies:Nan"]
    assert policy_contents("no_such_module:Mine") == policy_contents("no/such.py") == ""


def test_models_are_hashed_and_those_without_a_head_say_none(tmp_path):
    shipped = contents_of_models(EpisodeConfig())
    assert list(shipped) == ["weights drive-tiny", "hazard head hazard-tiny"]
    assert list(contents_of_models(EpisodeConfig(hazard_head=""))) == ["weights drive-tiny"]
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"first")
    first = contents_of_models(EpisodeConfig(weights=str(own)))
    own.write_bytes(b"other")
    assert list(first) == [f"weights {own}"]
    assert first != contents_of_models(EpisodeConfig(weights=str(own)))
    with pytest.raises(InputError, match="no weights named 'none-such'"):
        contents_of_models(EpisodeConfig(hazard_head="none-such"))


def kept_drive(folder, policy, **changes):
    """Drive the policy in the reference world, or take what the folder has."""
    settings = DriveSettings(
        world=World.REFERENCE, episode=EpisodeConfig(horizon=3, **changes), has_videos=False
    )
    driven = []

    def drive(jobs, settings, **rest):
        driven.extend(jobs)
        return run_episodes(jobs, settings, processes=0, **rest)

    with _kept(folder, settings, [str(policy), "blind"]) as kept:
        results = _driven(jobs_for([str(policy)], ["scene-2001"], 1), settings, drive, kept)
    return results, len(driven)


def test_kept_episodes_of_a_changed_policy_are_refused(policy, tmp_path):
    (first,), count = kept_drive(tmp_path / "kept", policy)
    assert count == 1
    (again,), count = kept_drive(tmp_path / "kept", policy)
    assert count == 0
    assert np.array_equal(first.arrays["action"], again.arrays["action"])
    policy.write_text(STRAIGHT.replace("6.0", "7.0"))
    with pytest.raises(InputError, match=r"straight.py with other contents.*new folder for --episodes"):
        kept_drive(tmp_path / "kept", policy)
    (other,), count = kept_drive(tmp_path / "new", policy)
    assert count == 1
    assert not np.array_equal(first.arrays["action"], other.arrays["action"])


def test_episodes_kept_without_a_hash_are_not_trusted(policy, tmp_path):
    kept_drive(tmp_path / "kept", policy)
    [path] = (tmp_path / "kept").glob("*/episodes/*.json")
    plain = json.loads(path.read_text())
    del plain["policy_contents"]
    path.write_text(json.dumps(plain))
    with pytest.raises(
        InputError, match=r"did not note the contents of its files.*new folder for --episodes"
    ):
        kept_drive(tmp_path / "kept", policy)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (
            {CONTENTS: {"mine.py": "aa"}},
            r"holds a run with other contents of mine.py: .*new folder for --out",
        ),
        ({}, "did not note the contents of mine.py"),
        ({CONTENTS: {}}, "did not note the contents of mine.py, so it may be of others; name a new folder"),
        ({"steps": 5}, r"another steps \(5, not None\)"),
    ],
)
def test_a_folder_of_other_contents_says_which(before, message, tmp_path):
    with opened(tmp_path / "run", before, resumes=False):
        (tmp_path / "run" / "episodes").mkdir()
        (tmp_path / "run" / "episodes" / "one.json").write_text("{}")
    now = {CONTENTS: {"mine.py": "bb"}}
    with pytest.raises(InputError, match=message), opened(tmp_path / "run", now, resumes=True):
        pass


def test_a_folder_of_an_earlier_version_without_files_goes_on(tmp_path):
    with opened(tmp_path / "run", {"steps": 5}, resumes=False):
        (tmp_path / "run" / "episodes").mkdir()
        (tmp_path / "run" / "episodes" / "one.json").write_text("{}")
    with opened(tmp_path / "run", {"steps": 5, CONTENTS: {}}, resumes=True) as folder:
        assert folder.path == tmp_path / "run"
