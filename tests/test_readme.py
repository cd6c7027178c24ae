"""The README's commands parse with the real command line, its code runs, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from drivesim import cli
from drivesim.checkpoint import shipped_weights
from drivesim.config import load_config
from drivesim.rollout import load_policy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHELL_LINES = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
GENERATE_LINES = [line for line in SHELL_LINES if line.startswith("drivesim generate")]
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def parsed(line):
    """Return (command name, parameters) as the real command line reads them; raises on an unknown flag."""
    words = shlex.split(line)
    assert words.pop(0) == "drivesim", line
    command = typer.main.get_command(cli.app)
    path = []
    while hasattr(command, "commands"):
        path.append(words.pop(0))
        command = command.commands[path[-1]]
    return " ".join(path), command.make_context(path[-1], words).params


@pytest.mark.parametrize("line", SHELL_LINES)
def test_commands_parse_and_their_overrides_compose(line):
    name, parameters = parsed(line)
    if name in ("rollout", "train"):
        load_config(name, parameters["overrides"] or [])


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if "--policy" in line])
def test_named_policies_can_be_made(line):
    _, parameters = parsed(line)
    config = load_config("rollout", parameters["overrides"] or [])
    load_policy(parameters["policy"], **config.policy.kwargs)


@pytest.mark.slow
@pytest.mark.skipif("general-tiny" not in shipped_weights(), reason="the weights general-tiny are not there")
def test_clips_are_generated_as_shown(tmp_path, monkeypatch):
    """In the order of the README: later commands read what earlier ones wrote."""
    monkeypatch.chdir(tmp_path)
    for line in GENERATE_LINES:
        with pytest.raises(SystemExit) as caught:
            cli.main(shlex.split(line)[1:])
        assert not caught.value.code, line
        assert parsed(line)[1]["out"].stat().st_size > 1000, line
    exec(compile(PYTHON_BLOCKS[3], "README.md", "exec"), {})


def test_make_verbs_exist():
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(re.findall(r"^    make ([a-z-]+)", text, re.MULTILINE)) <= verbs


def test_the_environment_example_runs(capsys):
    exec(compile(PYTHON_BLOCKS[0], "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_batches_and_saved_episodes_run():
    shown = {}
    exec(compile(PYTHON_BLOCKS[1], "README.md", "exec"), shown)
    assert shown["observations"].shape == (4, 128, 224, 3)
    assert shown["env"].ego == shown["here"].place.ego


def test_the_policy_example_drives(tmp_path, monkeypatch):
    import gymnasium as gym

    (tmp_path / "my_policy.py").write_text(PYTHON_BLOCKS[2])
    monkeypatch.syspath_prepend(tmp_path)
    policy = load_policy("my_policy:Cautious")
    env = gym.make("drivesim:Reference-Drive-v0")
    observation, info = env.reset(seed=0)
    action = policy.select_action(observation, info)
    assert env.action_space.contains(action)
    env.close()


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
