"""Nothing half-written ever stands under its final name."""

import pytest

from drivesim.files import atomic_folder, atomic_path, remove_abandoned, reserve_space


def _fail_after(path, text):
    path.write_text(text)
    raise OSError("disk full")


def test_file_appears_complete(tmp_path):
    with atomic_path(tmp_path / "deep" / "a.json") as path:
        path.write_text("{}")
        assert not (tmp_path / "deep" / "a.json").exists()
    assert (tmp_path / "deep" / "a.json").read_text() == "{}"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_path(target) as path:
        _fail_after(path, "half")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_folder_appears_complete_or_not_at_all(tmp_path):
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "set" / "x").read_text() == "1"
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "other") as folder:
        _fail_after(folder / "x", "1")
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_a_folder_with_content_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("1")
    with pytest.raises(FileExistsError, match="not empty"), atomic_folder(tmp_path):
        pass


def test_only_abandoned_folders_are_removed(tmp_path):
    (tmp_path / ".set-0123abcd").mkdir()
    (tmp_path / ".set-0123abcd" / "half.npy").touch()
    (tmp_path / ".setting").mkdir()
    with atomic_folder(tmp_path / "set") as used:
        remove_abandoned(tmp_path / "set")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([used.name, ".setting"])
    assert (tmp_path / "set").is_dir()


def test_reserved_space_changes_nothing_but_the_blocks(tmp_path):
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.write(b"head")
        file.truncate(100_000)
    reserve_space(path)
    assert path.read_bytes() == b"head" + bytes(99_996)
    assert path.stat().st_blocks * 512 >= 100_000
