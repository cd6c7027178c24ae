"""Policies named with settings: how names are taken apart, and that the settings arrive."""

import pytest

from benchmarks.closed_loop import split_names
from benchmarks.drive_contents import policy_contents
from benchmarks.trust_pairs import short_name
from drivesim.errors import InputError
from drivesim.hub import WEIGHTS_FILE
from drivesim.policy_loading import load_policy, make_policy
from drivesim.policy_naming import parse_policy, split_policies


def test_values_are_numbers_words_and_text():
    text = "a=3,b=-0.5,c=true,d=False,e=none,f=drive-tiny,g='3',h=1e-3,i=,j=x=y"
    expected = {"a": 3, "b": -0.5, "c": True, "d": False, "e": None, "f": "drive-tiny", "g": "3"}
    named = parse_policy(f"cem@{text}")
    assert named.target == "cem"
    assert named.settings == expected | {"h": 0.001, "i": "", "j": "x=y"}
    assert type(named.settings["a"]) is int


@pytest.mark.parametrize(
    ("name", "target", "settings"),
    [
        ("cem", "cem", {}),
        ("mine.py:Mine@gain=2", "mine.py:Mine", {"gain": 2}),
        ("/home/me@work/mine.py", "/home/me@work/mine.py", {}),
        ("/home/me@work/mine.py@gain=2", "/home/me@work/mine.py", {"gain": 2}),
        ("runs/agent.zip", "stable-baselines", {"checkpoint": "runs/agent.zip"}),
        ("a@b.zip@algorithm=SAC", "stable-baselines", {"checkpoint": "a@b.zip", "algorithm": "SAC"}),
        ("behavior-cloning@weights=me@work/w.safetensors", "behavior-cloning", None),
    ],
)
def test_names_are_taken_apart(name, target, settings):
    named = parse_policy(name)
    assert named.target == target
    assert named.settings == ({"weights": "me@work/w.safetensors"} if settings is None else settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cem@horizon", "setting 'horizon' of policy 'cem' has no value; write cem@horizon=VALUE"),
        ("cem@", "write cem@key=VALUE"),
        ("cem@seed=1,seed=2", "setting 'seed' of policy 'cem' is given twice"),
        ("agent.zip@checkpoint=b.zip", "write stable-baselines@checkpoint=b.zip"),
        ("random@hold=2", "has no setting 'hold'; did you mean hold_s?"),
        ("bad_policies:Nan@gain=2", "has no setting 'gain'; it takes none"),
        ("stable-baselines", "needs the setting 'checkpoint'; add it: stable-baselines@checkpoint=VALUE"),
        ("stable-baselines@device=cpu", "add it: stable-baselines@device=cpu,checkpoint=VALUE"),
        ("random@hold_s=0", "hold_s must be positive, got 0"),
        ("cemm@horizon_steps=3", "there is no policy 'cemm'; did you mean cem"),
        ("no/agent.zip", "there is no file no/agent.zip"),
    ],
)
def test_mistakes_name_the_key_and_the_remedy(name, message):
    with pytest.raises(InputError) as caught:
        load_policy(name)
    assert message in str(caught.value)


def test_settings_arrive_and_go_before_others():
    assert load_policy("random@hold_s=2.5").hold_s == 2.5
    assert make_policy("random@hold_s=2.5", seed=4, hold_s=1.0).hold_s == 2.5
    assert make_policy("random@hold_s=2.5", seed=4).seed == 4
    assert make_policy("random@seed=7", seed=4).seed == 7


def test_commas_between_settings_separate_no_policies():
    assert split_policies("cem@a=1,b=2,idm,mine.py@c=x,a=b.py") == [
        "cem@a=1,b=2",
        "idm",
        "mine.py@c=x,a=b.py",
    ]
    assert split_names(["idm,cem@a=1,b=2", "idm", "x=1"]) == ["idm", "cem@a=1,b=2", "x=1"]


def test_short_names_keep_the_settings():
    assert short_name("some/where/mine.py:Mine@file=a/b:c.zip") == "Mine@file=a/b:c.zip"
    assert short_name("runs/agent.zip") == "agent.zip"


def test_files_named_by_settings_count_as_contents(tmp_path):
    checkpoint = tmp_path / "agent.zip"
    checkpoint.write_bytes(b"one")
    names = [str(checkpoint), f"stable-baselines@checkpoint={checkpoint}"]
    first, same = [policy_contents(name) for name in names]
    assert first == same != ""
    checkpoint.write_bytes(b"two")
    assert policy_contents(names[0]) != first
    assert policy_contents("cem@weights=drive-tiny") == policy_contents("cem@num_samples=8") != ""
    assert policy_contents("random@hold_s=2") == ""


def test_weights_in_a_folder_count_as_contents(tmp_path):
    (tmp_path / WEIGHTS_FILE).write_bytes(b"one")
    name = f"behavior-cloning@weights={tmp_path}"
    first = policy_contents(name)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"two")
    assert policy_contents(name) != first
