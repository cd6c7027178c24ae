"""Tables as people have them: any common encoding, delimiter and decimal sign, with or without a heading.

Cells stay text until a column is asked for; every row knows its line in the file, so that messages can name it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.geometry import FloatArray

DELIMITERS = (",", ";", "\t", "|")
MAX_BYTES = 256 << 20
_SNIFFED_LINES = 50
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)
_MAX_BAD_SHARE = 0.5
_UNIT_WORDS = {
    *(
        "s",
        "sec",
        "secs",
        "second",
        "seconds",
        "ms",
        "msec",
        "millis",
        "milliseconds",
        "us",
        "usec",
        "microseconds",
    ),
    *(
        "ns",
        "nsec",
        "nanoseconds",
        "deg",
        "degree",
        "degrees",
        "rad",
        "rads",
        "radian",
        "radians",
        "m",
        "km",
        "h",
    ),
    *("mps", "kmh", "kph", "kmph", "mph", "degps", "radps", "dps"),
}


@dataclass(kw_only=True, slots=True)
class CsvTable:
    """The rows of a table, all of one width."""

    path: Path
    header: list[str] | None  # None: the file has none
    rows: list[list[str]]
    lines: list[int]  # of each row in the file, from 1 on
    num_left_out: int  # rows of another width
    first_left_out: int  # line of the first of them, 0 without any

    def place(self, row: int) -> str:
        """Return what messages call a row."""
        return f"{self.path}, row {self.lines[row]}"

    def find(self, aliases: tuple[str, ...], *, given: str | None = None) -> int | None:
        """Return the column of a quantity: the one ``given`` by heading or number, else the first known alias.

        Raises:
            InputError: there is no column of the given heading or number.
        """
        if given is not None:
            return self._given(given)
        names = [plain_name(name) for name in self.header or []]
        for known in (names, [_without_unit(name) for name in names]):
            for alias in aliases:
                if alias in known:
                    return known.index(alias)
        return None

    def _given(self, given: str) -> int:
        wanted = [index for index, name in enumerate(self.header or []) if name.strip() == given.strip()]
        if wanted:
            return wanted[0]
        num_columns = len(self.header or (self.rows[0] if self.rows else []))
        if given.isascii() and given.isdigit() and len(given) < 6 and 1 <= int(given) <= num_columns:
            return int(given) - 1
        there = ", ".join(self.header) if self.header else f"no heading, but {num_columns} columns"
        raise InputError(f"{self.path} has no column {given!r}; it has {there}")

    def texts(self, column: int) -> list[str]:
        """Return the cells of a column."""
        return [row[column].strip() for row in self.rows]

    def numbers(self, column: int) -> FloatArray:
        """Return the numbers of a column; NaN where a cell is none."""
        return np.array([number(row[column]) for row in self.rows], dtype=np.float64)


def plain_name(heading: str) -> str:
    """Return a heading in small letters, without its unit and what is not a letter or digit."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"[(\[].*?[)\]]", "", heading.lower())).strip("_")


def _without_unit(name: str) -> str:
    words = name.split("_")
    while len(words) > 1 and words[-1] in _UNIT_WORDS:
        words.pop()
    return "_".join(words)


def number(text: str) -> float:
    """Return a number written with a decimal point or comma; NaN if it is none or not finite."""
    text = text.strip().strip('"')
    if _COMMA_NUMBER.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return float("nan")
    value = float(text)
    return value if np.isfinite(value) else float("nan")


def moment_s(text: str) -> float:
    """Return the seconds of a date and time such as ``2016-12-01 13:30:48.287``; NaN if it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)).total_seconds()
    except (ValueError, OverflowError):
        return float("nan")


def read_table(path: Path) -> CsvTable:
    """Read a table of any common encoding and delimiter.

    Raises:
        InputError: it cannot be read, is not a table, or most of its rows are of another width than the others.
    """
    text = _decoded(path)
    delimiter = _delimiter(text, path)
    rows, lines = [], []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}, row {reader.line_num}: not a table ({error}); export it again") from error
    if not rows:
        raise InputError(f"{path} holds no rows; record something or leave it out")
    header = rows[0] if _is_header(rows) else None
    if header is not None:
        rows, lines = rows[1:], lines[1:]
        while header and not header[-1].strip():  # a delimiter at the end of the line
            header = header[:-1]
    return _of_one_width(path, header, rows, lines)


def _of_one_width(path: Path, header: list[str] | None, rows: list[list[str]], lines: list[int]) -> CsvTable:
    if not rows:
        raise InputError(f"{path} holds a heading but no rows; record something or leave it out")
    width = len(header) if header else Counter(len(row) for row in rows).most_common(1)[0][0]
    trimmed = [row[:width] if not any(cell.strip() for cell in row[width:]) else row for row in rows]
    is_good = [len(row) == width for row in trimmed]
    bad = [line for line, good in zip(lines, is_good, strict=True) if not good]
    if len(bad) > _MAX_BAD_SHARE * len(rows):
        raise InputError(
            f"{path}, row {bad[0]} has not the {width} cells of "
            f"{'the heading' if header else 'the other rows'}, nor have {len(bad) - 1} others; "
            "export it with one delimiter that no cell contains"
        )
    return CsvTable(
        path=path,
        header=header,
        rows=[row for row, good in zip(trimmed, is_good, strict=True) if good],
        lines=[line for line, good in zip(lines, is_good, strict=True) if good],
        num_left_out=len(bad),
        first_left_out=bad[0] if bad else 0,
    )


def _decoded(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MB; split it by drives")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); check the path") from error
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:200]:
        encoding = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    for name in (encoding or "utf-8", "latin-1"):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text
    raise InputError(f"{path} is not text; name a table of comma-separated values")


def _delimiter(text: str, path: Path) -> str:
    """Return the delimiter that cuts the first lines into most columns, as evenly as possible."""
    lines = [line for line in text[: 1 << 16].splitlines()[:_SNIFFED_LINES] if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no rows; record something or leave it out")

    def merit(delimiter: str) -> tuple[float, int]:
        counts = [line.count(delimiter) for line in lines]
        usual, times = Counter(counts).most_common(1)[0]
        return (times / len(lines) if usual else 0.0, usual)

    # "1,5;2,5" is even in both: decimal commas are told by another delimiter that is there too.
    even = [delimiter for delimiter in DELIMITERS[1:] if merit(delimiter)[0] > 0.8]
    if even:
        return max(even, key=merit)
    best = max(DELIMITERS, key=merit)
    return " " if merit(best)[1] == 0 and merit(" ")[1] > 0 else best


def _is_header(rows: list[list[str]]) -> bool:
    """Tell whether the first row names columns: it holds no number, or none where the next row does."""
    first = [not np.isnan(number(cell)) for cell in rows[0]]
    if not any(first):
        return len(rows) == 1 or any(not np.isnan(number(cell)) for row in rows[1:6] for cell in row)
    return False
