"""Tables are read in windows, by a pattern where rows are regular; what comes out is what json.loads gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivesim.errors import InputError
from drivesim.scene import table_scan
from drivesim.scene.table_layout import learn_layout
from drivesim.scene.table_rows import file_of, numbers_of, read_table, whole_of
from drivesim.scene.table_scan import TableScan

LAYOUTS: list[dict[str, Any]] = [
    {"indent": 0},
    {"separators": (",", ":")},
    {},
    {"indent": 3, "ensure_ascii": False},
]


def record(index: int, **changes: Any) -> dict[str, Any]:
    return {
        "token": f"{index:032x}",
        "timestamp": 1_532_402_927_814_384 + index,
        "is_key_frame": index % 2 == 0,
        "height": 900,
        "rotation": [0.5731787718287827, -1.5e-05, 0.0, -1],
        "filename": f"sweeps/CAM_FRONT/n015+0800__{index}.jpg",
        "prev": "",
    } | changes


def scanned(path: Path) -> list[dict[str, Any]]:
    """Read every row at the place that the scan names, and compare the fields it gives."""
    data, found = path.read_bytes(), []
    scan = TableScan(path, texts=("token", "filename"), wholes=("timestamp",))
    for batch in scan:
        assert batch.first_row == len(found)
        columns = [batch.columns[name] for name in ("token", "filename", "timestamp")]
        for offset, length, *fields in zip(batch.offsets, batch.lengths, *columns, strict=True):
            row = json.loads(data[offset : offset + length])
            assert fields[:2] == [
                row[name].encode("utf-8", "surrogatepass") for name in ("token", "filename")
            ]
            assert int(fields[2]) == row["timestamp"]
            found.append(row)
    assert scan.num_rows == len(found)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sample data é.json"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [64, 700, 1 << 22])
def test_every_layout_is_read(
    path: Path, layout: dict[str, Any], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_scan, "WINDOW", window)
    records = [record(index) for index in range(40)]
    records[7]["filename"] = 'a "quoted" ñame.jpg'
    records[8] = dict(reversed(records[8].items()))
    records[9] |= {"prev": None, "extra": {"deep": [1, {"deeper": []}]}}
    path.write_text(json.dumps(records, **layout), encoding="utf-8")
    assert scanned(path) == records


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "\ufeff[]", "[\n]\n"])
def test_empty_tables(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    assert scanned(path) == []


def test_regular_rows_go_by_the_pattern(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps([record(index) for index in range(500)], indent=0))
    decoded = []
    plain = TableScan._decoded
    monkeypatch.setattr(
        TableScan, "_decoded", lambda self, text: decoded.append(len(text)) or plain(self, text)
    )
    assert len(scanned(path)) == 500
    assert sum(decoded) < 1000  # the last row alone, which no comma follows


BROKEN = {
    "": "truncated or not a JSON list",
    "{}": "truncated or not a JSON list",
    "[{]": "not JSON at row 1",
    "[1]": "row 1 is not a record",
    "[null]": "row 1 is not a record",
    '[{"token": "a"}]': "row 1 has no 'filename'",
    '[{"token": 3, "filename": "b", "timestamp": 1}]': "token must be text, not 3",
    '[{"token": "a", "filename": "b", "timestamp": 1e999}]': "timestamp must be a whole number",
    '[{"token": "a", "filename": "b", "timestamp": NaN}]': "timestamp must be a whole number",
    '[{"token": "a", "filename": "b", "timestamp": true}]': "timestamp must be a whole number",
    '[{"token": "a", "filename": "b", "timestamp": "1"}]': "timestamp must be a whole number",
    f'[{{"token": "a", "filename": "b", "timestamp": {"9" * 400}}}]': "not a number of more than 18 digits",
    f'[{{"token": "a", "filename": "b", "timestamp": {"9" * 5000}}}]': "a number of too many digits",
    f'[{{"token": {"[" * 100_000}': "row 1 is nested too deeply",
    '[{"token": "a", "filename": "b", "timestamp": 1} {}]': "row 1 is followed by '{'",
    '[{"token": "a", "filename": "b", "timestamp": 1},]': "not JSON at row 2",
    '[{"token": "a", "filename": "b", "timestamp": 1}': "not JSON at row 1",
    '[{"token": "a", "filename": "b", "timestamp": 1}] x': "goes on after its end at byte 50",
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_tables_are_one_sentence(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        scanned(path)
    words = str(caught.value)
    assert BROKEN[text] in words
    assert str(path) in words
    assert "\n" not in words


def test_other_encodings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([record(0, filename="é.jpg")], ensure_ascii=False)
    path.write_bytes(text.encode("utf-8-sig"))
    assert scanned(path)[0]["filename"] == "é.jpg"
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        path.write_bytes(text.encode(encoding))
        with pytest.raises(InputError, match="save it as UTF-8"):
            scanned(path)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text at byte"):
        scanned(path)
    with pytest.raises(InputError, match="cannot be read"):
        list(TableScan(path.parent, texts=("token",)))
    monkeypatch.setattr(table_scan, "MAX_RECORD", 1000)
    monkeypatch.setattr(table_scan, "WINDOW", 512)
    path.write_text(json.dumps([record(0, filename="x" * 5000)]))
    with pytest.raises(InputError, match="not JSON at row 1"):
        scanned(path)


def test_layouts_that_are_not_flat_are_left_to_the_decoder() -> None:
    fields = {"texts": ("token",), "wholes": ()}
    assert learn_layout(b'{"token":"a"}', b",", **fields) is not None
    for text in (
        b'{"token":{"a":1}}',
        b'{"token":"a","token":"b"}',
        b'{"x":1}',
        b'{"token":"\\u0061"}',
        b'{"token":[[1]]}',
    ):
        assert learn_layout(text, b",", **fields) is None


VALUES = st.one_of(st.text(max_size=6), st.integers(), st.floats(), st.booleans(), st.none())
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "token": st.text(max_size=4),
            "filename": st.sampled_from(["a.jpg", "b \\ c", 'q"', "é"]),
            "timestamp": st.integers(-5, 2**50),
        },
        optional={"more": VALUES, "list": st.lists(VALUES, max_size=3)},
    ),
    max_size=8,
)  # fmt: skip
PIECES = st.sampled_from(
    [b"", b"{", b"}", b"]", b",", b'"', b"\\", b"\0", b"\xff", b"1e999", b"-", b"0", b" ", b"\n"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=ROWS,
    layout=st.sampled_from(LAYOUTS),
    window=st.sampled_from([7, 50, 1 << 20]),
    place=st.floats(0, 1),
    cut=st.integers(0, 3),
    piece=st.none() | PIECES,
)
def test_fuzz_rows_are_those_of_json_or_an_input_error(
    path: Path, records: Any, layout: Any, window: int, place: float, cut: int, piece: bytes | None
) -> None:
    data = json.dumps(records, **layout).encode("utf-8", "surrogatepass")
    if piece is not None:
        at = round(place * len(data))
        data = data[:at] + piece + data[at + cut :]
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_scan, "WINDOW", window)
        try:
            found = scanned(path)
        except InputError:
            assert piece is not None or any("\\ud" in json.dumps(row) for row in records)
            return
    assert repr(found) == repr(json.loads(data))


def test_small_tables(path: Path) -> None:
    for text in ("[", "3", '[{"token": 1}]', "[[]]", "[" * 100_000, '[{"token": 9' + "9" * 5000 + "}]"):
        path.write_text(text)
        with pytest.raises(InputError, match="sample data") as caught:
            read_table(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(path.parent / "none.json")


@pytest.mark.parametrize(
    "value",
    [[1, 2], [1, 2, "3"], [1, 2, float("nan")], [1, 2, 10**400], [1, 2, True], [[1, 2, 3]], None, "abc"],
)
def test_numbers_that_are_not_finite_or_of_another_shape(value: Any) -> None:
    with pytest.raises(InputError, match="row 4: translation must be 3 finite numbers"):
        numbers_of({"translation": value}, "translation", "row 4", (3,))


def test_whole_numbers_may_be_written_as_floats() -> None:
    assert whole_of({"t": 1.5e15}, "t", "row 1") == 1_500_000_000_000_000


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "samples/../../x.jpg",
        "C:\\x.jpg",
        "..\\x.jpg",
        "",
        "a\0b",
        "\ud800",
    ],
)
def test_files_outside_the_data_root_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="row 3: filename"):
        file_of({"filename": name}, "filename", "row 3")
    assert file_of({"filename": "samples/a b é.jpg"}, "filename", "row 3") == "samples/a b é.jpg"
