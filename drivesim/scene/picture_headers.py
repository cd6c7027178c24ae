"""What the bytes of a picture file say before anything is decoded: is it whole, how is it held, how large is it?"""

from __future__ import annotations

import re
import struct

JPEG_START = b"\xff\xd8"
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"
_EXIF = re.compile(rb"(?:eXIf|EXIF.{4}(?:Exif\0\0)?)(?=II\*\0|MM\0\*)", re.DOTALL)  # in PNG, in WebP
_ORIENTATION = 0x0112  # EXIF tag: 1 is upright, 2 to 8 are the other ways to hold a picture
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {
    0xC4,
    0xC8,
    0xCC,
}  # markers of segments that begin with the size
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a segment


def is_truncated(data: bytes) -> bool:
    """Tell whether the end of a JPEG or PNG file is missing."""
    if data.startswith(JPEG_START):
        return data.rfind(_JPEG_END) <= data.rfind(_JPEG_SCAN)
    return data.startswith(_PNG_START) and _PNG_END not in data[-16:]


def orientation(data: bytes) -> int:
    """Return how the EXIF of a PNG or WebP says that the picture is held."""
    found = _EXIF.search(data)
    if found is None:
        return 1
    exif = data[found.end() :]
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * index)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:  # it is cut short
        pass
    return 1


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG as it is stored, before it is turned; None if its header does not say."""
    position = len(JPEG_START)
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _JPEG_SIZES:
            height_px, width_px = struct.unpack_from(">HH", data, position + 5)
            return width_px, height_px
        if marker == 0xFF:  # a byte that only fills
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        else:
            position += 2 + max(2, int.from_bytes(data[position + 2 : position + 4], "big"))
    return None
