"""Files that are there whole or not at all, after a crash and on a full disk too."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_asking_umask = threading.Lock()
"""It can only be asked by setting it, for all threads."""


@contextmanager
def write_atomically(
    path: Path, mode: str = "wb", *, sync_file: bool = True, sync_folder: bool = True
) -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that replaces it, synced to disk, when the block ends.

    After a crash at any moment ``path`` is either the old file or the whole new one. Who writes
    many files may leave it to the end to sync the folder, and need not sync a file that is judged
    by its content when it is read.

    Raises:
        OSError: with ``path`` as the name of the file, which a full disk does not tell.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(handle, mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            if sync_file:
                os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        if sync_folder:
            sync_entries(path.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def write_together(folder: Path) -> Iterator[Path]:
    """Yield an empty folder whose files move into ``folder`` when the block ends, or none of them.

    They move in the order in which they were written: what describes the others is written last.
    Only a crash between two renames, for which a disk needs no room, leaves some of them.

    Raises:
        OSError: a file cannot be written; its name is the one that it was to have in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".parts") as name:
        drafts = Path(name)
        try:
            yield drafts
            written = sorted(drafts.iterdir(), key=lambda draft: draft.stat().st_mtime_ns)
            for target in (folder / draft.name for draft in written):
                if target.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            for draft in written:
                draft.replace(folder / draft.name)
        except OSError as error:
            if error.filename and Path(error.filename).parent == drafts:
                error.filename, error.filename2 = str(folder / Path(error.filename).name), None
            raise
        sync_entries(folder)


def sync_entries(folder: Path) -> None:
    """Force to disk which files a folder holds."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    with _asking_umask:
        mask = os.umask(0)
        os.umask(mask)
    return mask
