"""The data set that comes with the package: which worlds and drivers, and the command that makes it again.

Run ``python -m drivesim.reference.mini OUT``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from drivesim.reference.simulator import WorldSpec
from drivesim.reference.synth import ScenePlan, record_plans
from drivesim.scene.nuscenes_writer import ExportConfig

DURATION_S = 13.0
MINI_PLANS = [
    ScenePlan(spec=WorldSpec(family=family, seed=seed), driver=driver, duration_s=DURATION_S)
    for family, seed, driver in (
        ("winding", 900_006, "good"),
        ("winding", 900_009, "good"),
        ("winding", 900_001, "good"),
        ("winding", 900_003, "good"),
        ("winding", 900_010, "good"),
        ("winding", 900_008, "stop-and-go"),
        ("intersection", 900_024, "good"),
        ("roundabout", 900_052, "good"),
        ("racetrack", 900_037, "good"),
        ("two-way", 900_022, "sloppy"),
    )
]


def write_mini(out: Path) -> int:
    """Record drivesim-mini into the new folder ``out``; return the number of scenes."""
    return record_plans(MINI_PLANS, out, export=ExportConfig(jpeg_quality=90))


if __name__ == "__main__":
    write_mini(Path(sys.argv[1]))
