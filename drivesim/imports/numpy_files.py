"""Arrays that others saved with numpy: mapped, not read, so that a header cannot ask for more than the file holds."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from drivesim.errors import InputError
from drivesim.imports.foreign_files import short
from drivesim.scene.geometry import FloatArray

MAX_NUMBERS = 20_000_000
_ERRORS = (
    ValueError,
    TypeError,
    KeyError,
    ArithmeticError,
    SyntaxError,
    TokenError,
    RecursionError,
    MemoryError,
)


def read_array(path: Path, *, columns: int | None = None) -> FloatArray:
    """Read an array of numbers saved by ``numpy.save``; nothing in it is ever run.

    Args:
        path: of the file, whatever its suffix.
        columns: how many numbers a row has; None returns the first of each row, as (N,).

    Raises:
        InputError: the file is missing, truncated, no array, or of another shape.
    """
    try:
        with np.errstate(over="raise"):  # where the sizes in the header overflow
            mapped = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or 'truncated'}); fetch it again") from error
    except _ERRORS as error:
        raise InputError(
            f"{path} is truncated or not a numpy array ({short(error)}); fetch it again"
        ) from error
    if mapped.dtype.kind not in "fiu" or mapped.ndim == 0 or not 0 < mapped.size <= MAX_NUMBERS:
        raise InputError(f"{path} holds {mapped.dtype} {mapped.shape}, not a list of numbers; fetch it again")
    rows = np.array(mapped, dtype=np.float64).reshape(len(mapped), -1)
    if columns is None:
        return rows[:, 0]
    if rows.shape[1] != columns:
        raise InputError(f"{path} has {rows.shape[1]} numbers in a row, expected {columns}; fetch it again")
    return rows
