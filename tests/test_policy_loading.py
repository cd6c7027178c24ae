"""Policies by short name, module, and file; what is said of those that cannot be had."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from drivesim.errors import InputError
from drivesim.policy_loading import POLICIES, POLICY_HELP, Policy, load_policy, make_policy

BEING_BUILT = {"cem", "mppi", "behavior-cloning", "stable-baselines"}
"""These need weights or extras."""

MINE = """
class Mine:
    def __init__(self, gain=1.0):
        self.gain = gain

    def select_action(self, observation, info):
        return info["log_action"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    elsewhere = [place for place in sys.path if not (Path(place) / "mine.py").exists()]  # of other tests
    monkeypatch.setattr(sys, "path", elsewhere)
    return tmp_path


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in BEING_BUILT])
def test_every_name_makes_a_policy(name: str) -> None:
    assert isinstance(load_policy(name), Policy)
    assert isinstance(make_policy(name, seed=3), Policy)


def test_the_help_names_them_all() -> None:
    assert all(name in POLICY_HELP for name in POLICIES)


def test_a_seed_reaches_only_those_that_take_one(folder: Path) -> None:
    assert make_policy("random", seed=5).seed == 5  # type: ignore[attr-defined]
    assert not hasattr(make_policy("constant", seed=5), "seed")
    (folder / "factory.py").write_text(MINE + "def made(*, seed, gain):\n    return Mine(gain + seed)\n")
    assert make_policy("factory:made", seed=2, gain=0.5).gain == 2.5  # type: ignore[attr-defined]


def test_a_file_with_one_policy_needs_no_class(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "gains.py").write_text("GAIN = 4.0\n")
    (folder / "deep" / "mine.py").write_text("from gains import GAIN\n" + MINE + "class Other:\n    pass\n")
    assert type(load_policy("deep/mine.py")).__name__ == "Mine"
    assert load_policy(str(folder / "deep" / "mine.py"), gain=2.0).gain == 2.0  # type: ignore[attr-defined]
    assert type(load_policy("deep/mine.py:Mine")).__name__ == "Mine"


def test_a_file_is_read_again_only_when_it_was_changed(folder: Path) -> None:
    path = folder / "mine.py"
    path.write_text(MINE)
    first = type(load_policy("mine.py"))
    assert type(load_policy("./mine.py")) is first
    path.write_text(MINE.replace("1.0", "3.0"))
    os.utime(path, ns=(1, 1))
    assert load_policy("mine.py").gain == 3.0  # type: ignore[attr-defined]


def test_dataclasses_with_slots_work_in_files(folder: Path) -> None:
    (folder / "slotted.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        "@dataclass(slots=True, kw_only=True)\nclass Slotted:\n    seed: int | None = None\n"
        "    def select_action(self, observation, info):\n        return info['log_action']\n"
    )
    assert make_policy("slotted.py", seed=9).seed == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (MINE, "min.py", "no policy file 'min.py'; did you mean mine.py"),
        (MINE, "no/where.py", "no policy file 'no/where.py'"),
        (MINE, "mine.py:Mime", "no class 'Mime'; did you mean Mine"),
        ("x = 1\n", "mine.py", "no class in 'mine.py' has select_action"),
        (
            MINE + MINE.replace("Mine", "Yours"),
            "mine.py",
            "2 policies, Mine, Yours; choose one, such as mine.py:Mine",
        ),
        ("def f(:\n", "mine.py", "line 1 of mine.py.*SyntaxError"),
        ("\n\nx = missing + 1\n", "mine.py", "line 3 of mine.py.*NameError: name 'missing'"),
        ("import no_such_thing\n", "mine.py", "line 1 of mine.py.*no_such_thing"),
        ("import sys\nsys.exit('bye')\n", "mine.py", "line 2 of mine.py.*SystemExit: bye"),
        ("\n1 / 0\n", "mine:Mine", "line 2 of .*mine.py.*ZeroDivisionError"),
        (
            MINE.replace("self.gain = gain", "raise RuntimeError('no gain')"),
            "mine.py",
            "RuntimeError: no gain",
        ),
    ],
)
def test_what_cannot_be_had_is_one_sentence(folder: Path, text: str, name: str, message: str) -> None:
    (folder / "mine.py").write_text(text)
    sys.modules.pop("mine", None)
    with pytest.raises(InputError, match=message) as caught:
        load_policy(name)
    assert "\n" not in str(caught.value)


def test_bad_input_of_a_policy_is_passed_on(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^hold_s must be positive, got 0"):
        load_policy("random", hold_s=0)
    (folder / "picky.py").write_text(
        "from drivesim.errors import InputError\nraise InputError('install the extra')\n"
    )
    with pytest.raises(InputError, match=r"^install the extra"):
        load_policy("picky:Mine")
