"""Where the rows of ``ego_pose.json`` are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from drivesim.scene.table_scan import TableScan
from drivesim.scene.token_keys import token_keys


@dataclass(kw_only=True, slots=True)
class Poses:
    """The M rows of the table, in the order of the first halves of their keys."""

    keys: NDArray[np.uint64]  # (M, 2) of their tokens
    rows: NDArray[np.int32]  # (M,) 0 for the first of the table; ascending where keys are equal
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int32]
    sha256: str


def scan_poses(path: Path) -> Poses:
    """Pass over ``ego_pose.json``.

    Raises:
        InputError: it is missing or is not JSON.
    """
    scan = TableScan(path, texts=("token",))
    keys, offsets, lengths = [token_keys([])], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for batch in scan:
        keys.append(token_keys(batch.columns["token"]))
        offsets.append(batch.offsets)
        lengths.append(batch.lengths)
    known = np.concatenate(keys)
    order = np.argsort(known[:, 0], kind="stable")
    return Poses(
        keys=known[order],
        rows=order.astype(np.int32),
        offsets=np.concatenate(offsets)[order],
        lengths=np.concatenate(lengths)[order],
        sha256=scan.sha256,
    )
