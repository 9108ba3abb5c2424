"""Files held against a list of SHA-256 sums, as ``sha256sum`` writes it: what no heuristic finds.

    find archive -type f -exec sha256sum {} + > sums.sha256

A DICOM slice or a plain NIfTI has no checksum of its own: a bit that a disk changed is a voxel that
nobody doubts. Names in the list are relative to its folder.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.stored_file import StoredFile

_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES = {rb"\\": b"\\", rb"\n": b"\n", rb"\r": b"\r"}


def read_checksums(path: Path) -> Mapping[str, str]:
    """Return the sum of every listed file, by its real path; read once while it does not change.

    Raises:
        ValueError: no such list, or a line that is none of it.
    """
    try:
        require_at_most(path, MAX_TABLE_BYTES)
        return _parsed(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=2)
def _parsed(path: Path, _time_ns: int) -> Mapping[str, str]:
    folder, sums = os.path.realpath(path.parent), {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"{path}: line {number} is no SHA-256 sum and name, as of sha256sum")
        escaped, digest, name = found.groups()
        if escaped:
            name = re.sub(rb"\\[\\nr]", lambda match: _ESCAPES[match[0]], name)
        listed = os.path.normpath(os.path.join(folder, os.fsdecode(name)))  # noqa: PTH118
        sums[listed] = digest.decode().lower()
    return sums


def hold_against(checksums: Path, files: Iterable[Path]) -> None:
    """Compare files with their sums.

    Raises:
        VolumeRefused: E-CRC: a file differs from its sum, or has none; E-MISSING, E-NOTFILE,
            E-EMPTY.
    """
    sums = read_checksums(checksums)
    for path in files:
        expected = sums.get(os.path.realpath(path))
        if expected is None:
            raise VolumeRefused("E-CRC", path, f"is not in {checksums.name}")
        with StoredFile(path, ungzip=False) as file:
            found = hashlib.file_digest(file.stream, "sha256").hexdigest()  # type: ignore[arg-type]
        if found != expected:
            raise VolumeRefused(
                "E-CRC",
                path,
                f"its SHA-256 begins with {found[:12]}, in {checksums.name} with {expected[:12]}",
                "copy it again: it has changed since the list was made",
            )
