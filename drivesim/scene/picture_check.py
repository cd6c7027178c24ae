"""Is a picture file whole? A look at its first and last bytes costs microseconds, decoding it milliseconds."""

from __future__ import annotations

import stat
from pathlib import Path

from drivesim.errors import InputError
from drivesim.video import read_image

_TAIL = 64  # bytes in which a picture has to end; some cameras fill up the last block
_ENDS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}


def fault_of_ends(path: Path) -> str:
    """Return what is wrong with the beginning or the end of a JPEG or PNG file; "" if nothing is."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        size = status.st_size
        with path.open("rb") as file:
            head = file.read(8)
            file.seek(max(size - _TAIL, 0))
            tail = file.read()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not size:
        return "is empty"
    ends = [end for start, end in _ENDS.items() if head.startswith(start)]
    if not ends:
        return "is neither JPEG nor PNG"
    return "" if ends[0] in tail else f"is truncated after {size} bytes"


def fault_of_picture(path: Path) -> str:
    """Return why a picture cannot be decoded; "" if it can."""
    try:
        read_image(path)
    except InputError as error:
        return str(error).split(";", maxsplit=1)[0]
    return ""
