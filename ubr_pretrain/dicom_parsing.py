"""What pydicom is given to parse a file with: never more than the file holds, nothing twice."""

from __future__ import annotations

from ubr_pretrain.dicom_elements import TAGS, OddElement
from ubr_pretrain.stored_file import StoredFile

AFTER_META, PIXEL_GROUP = 0x00030000, 0x7FE00000

WANTED = {int(tag) for tag in TAGS}

PIXEL_TAGS = {PIXEL_GROUP + element for element in (0x08, 0x09, 0x10)}
"""Where pydicom stops before pixels."""


class BoundedStream:
    """A file that is asked for no more than it holds.

    A damaged length claims up to 4 GB, and Python makes room for all of it before it reads.
    """

    def __init__(self, file: StoredFile) -> None:
        self._read, self._size = file.stream.read, file.size
        self.seek, self.tell, self.name = file.stream.seek, file.stream.tell, str(file.path)

    def read(self, num_bytes: int = -1) -> bytes:
        """Read as a file does."""
        return self._read(min(num_bytes, self._size))


class UpToPixels:
    """Tells pydicom when to stop, and refuses an element that is given twice.

    Of two values pydicom takes the last and GDCM the first: nobody knows which one is meant.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._first: int | None = None

    def __call__(self, tag: int, *_: object) -> bool:
        """Return whether the pixels begin at an element."""
        if self._first is None:  # pydicom looks at it twice
            self._first = tag
            return tag in PIXEL_TAGS
        if tag in self._seen and tag in WANTED:
            raise OddElement(f"element {tag >> 16:04x},{tag & 0xFFFF:04x} is given twice")
        self._seen.add(tag)
        return tag in PIXEL_TAGS
