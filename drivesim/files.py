"""Files and folders that appear under their final name only when they are complete."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

if sys.platform != "win32":
    import fcntl


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _umask()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the final name on success and is removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_UMASK)  # some writers make files that only their owner may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``; it takes the final name on success and is removed on failure.

    Raises:
        FileExistsError: ``path`` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty; name a new folder or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    temporary.mkdir()
    lock = _locked(temporary)
    try:
        yield temporary
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def remove_abandoned(path: Path) -> None:
    """Delete the unfinished folders that killed processes left beside ``path``; those in use stay."""
    for folder in path.parent.glob(f".{path.name}-{'[0-9a-f]' * 8}"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def reserve_space(path: Path) -> None:
    """Give a sparse file all its blocks, so that writing to it through a memory map cannot fill the disk.

    Raises:
        OSError: the disk is too full for it.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that cannot do this
                raise OSError(error.errno, error.strerror, str(path)) from error


def _locked(folder: Path) -> int | None:
    """Lock a folder as long as the returned descriptor is open; None if another process has it."""
    if sys.platform == "win32":  # nothing is locked there, so nothing is taken for abandoned
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
