"""Reads a JSON table of any size row by row: where each row lies and the few fields that are asked for.

Memory stays at a few windows. Rows that are written like the first one are read by a pattern, all others by the
standard library's decoder, which also has the last word on what is JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from drivesim.errors import InputError
from drivesim.scene.table_layout import Layout, learn_layout
from drivesim.scene.table_rows import ADVICE, Record, text_of, whole_of

WINDOW = 1 << 18  # bytes read at a time; more than fit into the processor's cache are slower
MAX_RECORD = 1 << 24  # bytes; a longer row is no row of nuScenes
_SPACE = re.compile(rb"[ \t\r\n]*+")
_TEXT_SPACE = re.compile(r"[ \t\r\n]*+")
_BETWEEN_ROWS = re.compile(rb"\}[ \t\r\n]*+,[ \t\r\n]*+\{")
_DECODER = json.JSONDecoder()
_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(kw_only=True, slots=True)
class RowBatch:
    """Consecutive rows of a table."""

    first_row: int  # 0 for the first of the table
    offsets: NDArray[np.int64]  # (N,) of their first byte in the file
    lengths: NDArray[np.int32]  # (N,) bytes
    columns: Mapping[str, Sequence[bytes]]  # N values each; whole numbers as digits


class TableScan:
    """One pass over a table; ``sha256`` and ``num_rows`` are those of the whole file when it is over."""

    def __init__(
        self,
        path: Path,
        *,
        texts: Sequence[str],
        wholes: Sequence[str] = (),
        begin: int = 0,
        is_hashed: bool = True,
    ) -> None:
        """Prepare to read.

        Args:
            path: a JSON file that is a list of records.
            texts: fields that are strings.
            wholes: fields that are whole numbers.
            begin: byte of the row to begin with, which then counts as the first; 0 is the whole table.
            is_hashed: False leaves ``sha256`` to someone else.
        """
        self.path = path
        self.num_rows = 0
        self._texts, self._wholes = list(texts), list(wholes)
        self._digest = hashlib.sha256() if is_hashed else None
        self._buffer, self._start = (
            b"",
            begin,
        )  # what is read and not yet used, and where in the file that begins
        self._layout: Layout | None = None
        self._is_over = False
        self._file: BinaryIO

    @property
    def sha256(self) -> str:
        """Return the hash of what was read; "" if it was not asked for."""
        return self._digest.hexdigest() if self._digest else ""

    def __iter__(self) -> Iterator[RowBatch]:
        """Yield the rows in order.

        Raises:
            InputError: the file cannot be read, is not a list of records, or a row has not the fields asked for.
        """
        try:
            with self.path.open("rb") as self._file:
                yield from self._batches()
        except OSError as error:
            raise InputError(
                f"table {self.path} cannot be read ({error.strerror}); check the file"
            ) from error

    def _batches(self) -> Iterator[RowBatch]:
        self._file.seek(self._start)
        self._fill()
        if self._start == 0:
            self._enter()
        self._layout = None if self._is_over else self._learned()
        while not self._is_over:
            if len(self._buffer) < WINDOW // 2:
                self._fill()
            batch = self._regular_rows() or self._any_rows()
            self.num_rows += len(batch.offsets)
            yield batch
        if self._peek():
            raise InputError(f"table {self.path} goes on after its end at byte {self._start}; {ADVICE}")

    # ---------------------------------------------------------------------------------------- the buffer

    def _fill(self) -> bool:
        """Read one window more; False at the end of the file."""
        data = self._file.read(WINDOW)
        if self._digest:
            self._digest.update(data)
        self._buffer += data
        return bool(data)

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._start += count

    def _peek(self) -> bytes:
        """Return the next byte that is no white space, and drop what is before it."""
        while True:
            space = _SPACE.match(self._buffer)
            self._drop(space.end() if space else 0)
            if self._buffer or not self._fill():
                return self._buffer[:1]

    def _enter(self) -> None:
        """Drop everything before the first record."""
        if self._buffer.startswith(_WIDE_BOMS) or b"\0" in self._buffer[:4]:
            raise InputError(
                f"table {self.path} is UTF-16 or UTF-32 text; save it as UTF-8, as JSON has to be"
            )
        if self._buffer.startswith(_BOM):
            self._drop(len(_BOM))
        if self._peek() != b"[":
            raise InputError(f"table {self.path} is truncated or not a JSON list of records; {ADVICE}")
        self._drop(1)
        if self._peek() == b"]":
            self._drop(1)
            self._is_over = True

    # -------------------------------------------------------------------------------------- regular rows

    def _learned(self) -> Layout | None:
        text = self._buffer.decode("latin-1")  # one character a byte
        try:
            _, end = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            return None  # the exact reader says what is wrong with it
        comma = _TEXT_SPACE.match(text, end)
        begin = comma.end() if comma else end
        after = _TEXT_SPACE.match(text, begin + 1)
        if text[begin : begin + 1] != "," or after is None:
            return None
        record, separator = self._buffer[:end], self._buffer[end : after.end()]
        return learn_layout(record, separator, texts=self._texts, wholes=self._wholes)

    def _regular_rows(self) -> RowBatch | None:
        """Return the rows at the front of the buffer that have the layout; None if there is none."""
        if self._layout is None:
            return None
        found = self._layout.pattern.findall(self._buffer)
        if found and found[-1][-1]:
            found.pop()
        if not found:
            return None
        rows, *columns, _ = zip(*found, strict=True)
        lengths = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
        ends = np.cumsum(lengths, dtype=np.int64)
        batch = RowBatch(
            first_row=self.num_rows,
            offsets=self._start + ends - lengths,
            lengths=lengths - np.int32(self._layout.num_separator_bytes),
            columns=dict(zip(self._layout.fields, columns, strict=True)),
        )
        self._drop(int(ends[-1]))
        return batch

    # ------------------------------------------------------------------------------------------ any rows

    def _any_rows(self) -> RowBatch:
        """Return at least one row, read by the standard library's decoder."""
        while True:
            batch = self._decoded(self._text())
            if batch is not None:
                return batch
            if len(self._buffer) > MAX_RECORD or not self._fill():
                number = self.num_rows + 1
                raise InputError(f"table {self.path} is truncated or not JSON at row {number}; {ADVICE}")

    def _text(self) -> str:
        try:
            return self._buffer.decode()
        except UnicodeDecodeError as error:
            if error.start > 0 and len(self._buffer) - error.start < 4:  # cut inside a character
                return self._buffer[: error.start].decode()
            raise InputError(
                f"table {self.path} is not UTF-8 text at byte {self._start + error.start}; {ADVICE}"
            ) from error

    def _decoded(self, text: str) -> RowBatch | None:
        """Return the whole rows at the front of the text and drop them; None if not even one is whole."""
        offsets: list[int] = []
        lengths: list[int] = []
        records: list[Record] = []
        position = used = 0  # in characters, in bytes
        while not self._is_over:
            begin, end, record = self._value(text, position, len(records))
            mark = _end_of_space(text, end)
            if record is None or mark == len(text):
                break
            if text[mark] not in ",]":
                raise InputError(f"{self._where(len(records))} is followed by {text[mark]!r}; {ADVICE}")
            offsets.append(self._start + used + _num_bytes(text[position:begin]))
            lengths.append(_num_bytes(text[begin:end]))
            records.append(record)
            used += _num_bytes(text[position : mark + 1])
            position = mark + 1
            self._is_over = text[mark] == "]"
        if not records:
            return None
        columns = self._columns(records)
        self._drop(used)
        return RowBatch(
            first_row=self.num_rows,
            offsets=np.array(offsets, dtype=np.int64),
            lengths=np.array(lengths, dtype=np.int32),
            columns=columns,
        )

    def _value(self, text: str, position: int, index: int) -> tuple[int, int, Record | None]:
        """Return where the record after ``position`` begins and ends; None if the text ends inside it."""
        begin = _end_of_space(text, position)
        record: Any
        try:
            record, end = _DECODER.raw_decode(text, begin)
        except json.JSONDecodeError:
            return begin, begin, None
        except (RecursionError, ValueError) as error:
            reason = (
                "nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
            )
            raise InputError(f"{self._where(index)} is {reason}; {ADVICE}") from error
        if not isinstance(record, dict):
            raise InputError(f"{self._where(index)} is not a record; {ADVICE}")
        return begin, end, record

    def _columns(self, records: list[Record]) -> dict[str, list[bytes]]:
        columns: dict[str, list[bytes]] = {}
        for name in self._texts:
            columns[name] = [
                text_of(record, name, self._where(index)).encode("utf-8", "surrogatepass")
                for index, record in enumerate(records)
            ]
        for name in self._wholes:
            columns[name] = [
                str(whole_of(record, name, self._where(index))).encode()
                for index, record in enumerate(records)
            ]
        return columns

    def _where(self, index: int) -> str:
        return f"table {self.path} row {self.num_rows + index + 1}"


def row_start_after(path: Path, offset: int) -> int | None:
    """Return where a row seems to begin after a byte; a text that looks like the end of a row can mislead."""
    with path.open("rb") as file:
        file.seek(offset)
        found = _BETWEEN_ROWS.search(file.read(WINDOW))
    return None if found is None else offset + found.end() - 1


def _end_of_space(text: str, position: int) -> int:
    match = _TEXT_SPACE.match(text, position)
    return match.end() if match else position


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
