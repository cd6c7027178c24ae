"""What the distribution holds, what importing it costs, and which way its imports point."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BARE_PACKAGES = ("envs", "policies", "benchmarks")


def python(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return result.stdout.strip()


def test_import_contracts_hold():
    command = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([command, "--no-cache"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_drivesim_registers_envs_and_loads_nothing_heavy():
    code = """
import sys, gymnasium, drivesim
assert "WorldDreamer-Drive-v0" in gymnasium.registry and "Reference-Drive-v0" in gymnasium.registry
print([name for name in ("torch", "highway_env", "nuscenes", "cv2", "envs", "hydra") if name in sys.modules])
"""
    assert python(code) == "[]"


def test_the_command_line_starts_without_torch():
    assert python("import sys, drivesim.cli; print('torch' in sys.modules)") == "False"


def test_the_package_list_is_what_lies_on_disk():
    listed = set(PROJECT["tool"]["setuptools"]["packages"]) - {"drivesim.configs"}
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("drivesim", "envs", "policies")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found
    folders_with_code = {
        path.parent for top in ("drivesim", "envs", "policies") for path in (ROOT / top).rglob("*.py")
    }
    assert all((folder / "__init__.py").exists() for folder in folders_with_code)


@pytest.mark.parametrize("name", BARE_PACKAGES)
def test_generic_packages_have_a_docstring_and_no_behaviour(name):
    import ast

    body = ast.parse((ROOT / name / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


def test_the_typing_marker_is_shipped():
    assert (ROOT / "drivesim" / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["drivesim"]


def test_constraints_have_no_addresses_and_no_local_versions():
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    assert all("==" in line and "+" not in line and "/" not in line and "@" not in line for line in lines)


def test_constraints_fit_the_declared_ranges():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = PROJECT["project"]
    declared = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    for requirement in map(Requirement, declared):
        if requirement.name != "drivesim":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_tracked_data_stays_small():
    shipped = [path for path in (ROOT / "drivesim").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    weights = sum(path.stat().st_size for path in shipped if path.parent.name == "weights")
    data = sum(path.stat().st_size for path in shipped if ROOT / "drivesim" / "data" in path.parents)
    assert weights <= 30e6
    assert data <= 8e6


def test_torchvision_is_importable_with_the_guard():
    code = """
from drivesim.torchvision_guard import ensure_torchvision
ensure_torchvision()
assert ensure_torchvision() is False
import torchmetrics
"""
    python(code)
