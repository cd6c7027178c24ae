"""Tokens of rows as numbers of fixed size, and how millions of them are found among millions."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_HEX = b"0123456789abcdef"
_TOKEN_BYTES = 16


def token_keys(tokens: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return (N, 2) numbers for tokens: their value where they are 32 hexadecimal digits, else a hash."""
    joined = b"".join(tokens)
    if set(map(len, tokens)) <= {2 * _TOKEN_BYTES} and not joined.translate(None, _HEX):
        raw = bytes.fromhex(joined.decode())
    else:
        raw = b"".join(
            bytes.fromhex(token.decode())
            if len(token) == 2 * _TOKEN_BYTES and not token.translate(None, _HEX)
            else blake2b(token, digest_size=_TOKEN_BYTES).digest()
            for token in tokens
        )
    return np.frombuffer(raw, dtype="<u8").reshape(-1, 2)


def find_keys(wanted: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (N,) rows of ``known`` (M, 2) that equal those of ``wanted`` (N, 2), the last of several; -1 for none.

    Args:
        wanted: keys to look for.
        known: keys to look among, in the order of their first halves.
    """
    if len(known) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    found = np.maximum(np.searchsorted(known[:, 0], wanted[:, 0], side="right") - 1, 0)
    is_found = (known[found] == wanted).all(axis=1)
    if (~is_found & (known[found, 0] == wanted[:, 0])).any():  # halves that meet by chance, or by intent
        rows = {key.tobytes(): row for row, key in enumerate(known)}
        return np.array([rows.get(key.tobytes(), -1) for key in wanted], dtype=np.int64)
    return np.where(is_found, found, -1)
