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
    """The M rows of the table."""

    keys: NDArray[np.uint64]  # (M, 2) of their tokens
    order: NDArray[np.int64]  # (M,) that sorts the first halves of the keys
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
    return Poses(
        keys=known,
        order=np.argsort(known[:, 0], kind="stable"),
        offsets=np.concatenate(offsets),
        lengths=np.concatenate(lengths),
        sha256=scan.sha256,
    )
