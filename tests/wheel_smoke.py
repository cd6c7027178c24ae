"""Run by `make wheel-test` with the Python of a fresh environment, from an empty folder, isolated (-I)."""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import packages_distributions
from pathlib import Path

import gymnasium as gym

import drivesim
from drivesim.config import configs_folder, load_config

COMMAND = Path(sys.executable).parent / "drivesim"


def main() -> None:
    assert not list(Path.cwd().iterdir()), "run this from an empty folder"
    assert "site-packages" in str(Path(drivesim.__file__)), drivesim.__file__
    owners = packages_distributions()
    for package in ("drivesim", "envs", "policies"):
        assert owners[package] == ["drivesim"], (package, owners[package])
    assert not {"tests", "benchmarks", "configs"} & owners.keys()
    assert (Path(drivesim.__file__).parent / "py.typed").exists()

    assert configs_folder().parent.name == "drivesim"
    load_config("rollout")
    load_config("train", ["experiment=drive_tiny"])

    env = gym.make("WorldDreamer-Drive-v0")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()

    subprocess.run([COMMAND, "scenes"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([COMMAND, "rollout", "--steps", "3", "--out", folder], check=True)
        record = json.loads((Path(folder) / "rollout.json").read_text())
        assert len(record["steps"]) == 3
        assert (Path(folder) / "rollout.mp4").stat().st_size > 1000
        circle = ["--prompt", "a red circle over the sea", "--frames", "1", "--out", f"{folder}/circle.png"]
        subprocess.run([COMMAND, "generate", "text", *circle], check=True)
        assert (Path(folder) / "circle.png").stat().st_size > 1000
    print("the wheel works from an empty folder")


if __name__ == "__main__":
    main()
