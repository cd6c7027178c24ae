"""The door to the nuScenes devkit, for what it can do without its tables in memory: official splits and map masks.

``import nuscenes`` brings matplotlib, scikit-learn and two seconds; a module that stands alone is run by itself.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

NATIVE_RESOLUTION_M = 0.1  # of the files
_STRIP_ROWS = 512


def split_scenes() -> dict[str, list[str]]:
    """Return the names of the scenes in each official split."""
    from nuscenes.utils.splits import create_splits_scenes

    splits: dict[str, list[str]] = create_splits_scenes()
    return splits


def map_mask(path: Path, resolution_m: float) -> Any:
    """Return a map mask (rows, columns), not zero where drivable, as the devkit reads it."""
    return _module("nuscenes.utils.map_mask").MapMask(str(path), resolution=resolution_m).mask()


def packed_map_mask(path: Path, resolution_m: float) -> tuple[NDArray[np.uint8], int]:
    """Return the same with eight cells to the byte, (rows, ceil(columns / 8)), and the number of columns.

    The devkit needs the picture and two copies; of a city's mask that is 2 GB. Here the picture is taken in strips.
    """
    images = _module("nuscenes.utils.map_mask").Image  # without Pillow's limit of size
    with images.open(path) as picture:
        picture.load()
        columns, rows = (int(size / resolution_m * NATIVE_RESOLUTION_M) for size in picture.size)
        x = ((np.arange(columns) + 0.5) * picture.width / columns).astype(np.int64)
        y = ((np.arange(rows) + 0.5) * picture.height / rows).astype(np.int64)
        bits = np.zeros((rows, -(-columns // 8)), dtype=np.uint8)
        for start in range(0, rows, _STRIP_ROWS):
            chosen = y[start : start + _STRIP_ROWS]
            strip = np.asarray(picture.crop((0, chosen[0], picture.width, chosen[-1] + 1)))
            cells = strip[_steady(chosen - chosen[0])][:, _steady(x)]
            cells = np.ascontiguousarray(cells) if cells.ndim == 2 else cells.any(axis=2)
            bits[start : start + _STRIP_ROWS] = np.packbits(cells, axis=1)
    return bits, columns


def _steady(places: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return evenly spaced places as a slice, which takes a view and no copy."""
    steps = np.diff(places)
    if len(steps) == 0 or (steps != steps[0]).any() or steps[0] < 1:
        return places
    return slice(int(places[0]), int(places[-1]) + 1, int(steps[0]))


def _module(name: str) -> ModuleType:
    """Import a module of the devkit that needs no other, without the package around it."""
    if name in sys.modules:
        return sys.modules[name]
    package, *parts = name.split(".")
    found = find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    file = Path(found.submodule_search_locations[0]).joinpath(*parts).with_suffix(".py")
    private = f"drivesim.scene._{'_'.join(parts)}"
    if private not in sys.modules:
        spec = spec_from_file_location(private, file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[private] = module
    return sys.modules[private]
