"""The door to pyarrow, which comes with ``drivesim[lerobot]``: whoever imports this without it is told so."""

from __future__ import annotations

from drivesim.errors import InputError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise InputError(
        f"LeRobot data sets need pyarrow, which cannot be imported ({error}); run: pip install 'drivesim[lerobot]'"
    ) from error

__all__ = ["pa", "pc", "pq"]
