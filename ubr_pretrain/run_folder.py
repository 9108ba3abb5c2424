"""The folder of one run: who may write it, what it was asked to do, whether it can go on.

Layout: ``config.yaml`` (rerunning it reproduces the run), ``run.json`` (versions, device, data
hash, wall time, status), ``train.log``, ``metrics.jsonl``, ``tb/``, ``checkpoints/``, pictures.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ubr_pretrain.config import config_differences, config_to_yaml, read_config, refuse
from ubr_pretrain.held_folder import HALF_WRITTEN, is_held, took_lock
from ubr_pretrain.runtime import RankLost, to_json
from ubr_pretrain.whole_file import write_atomically

LOCK = ".lock"


class RunFolderRefused(ValueError):  # noqa: N818
    """A folder this run must not write: taken, foreign, finished, or with nothing to resume."""


@dataclass(frozen=True)
class RunFolder:
    """A run folder.

    Attributes:
        path: where it is.
        moved: one line ``key: before -> now`` for every place that is another one than before.
    """

    path: Path
    moved: tuple[str, ...] = ()

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The checkpoint that validated best."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def progress_picture(self) -> Path:
        """The curves of the training so far."""
        return self.path / "progress.png"

    def note_moves(self, config: BaseModel) -> None:
        """Bring ``config.yaml`` up to date, once what moved is known to be the same as before.

        Args:
            config: what the run is asked to do.
        """
        if self.moved:
            self.write_config(config)

    def write_config(self, config: BaseModel) -> None:
        """Write ``config.yaml``, atomically."""
        with write_atomically(self.path / "config.yaml", "w") as file:
            file.write(config_to_yaml(config))

    def read_manifest(self) -> dict[str, Any]:
        """Return ``run.json``, empty where there is none yet.

        Raises:
            RunFolderRefused: it is damaged.
        """
        file = self.path / "run.json"
        if not file.is_file():
            return {}
        try:
            manifest = json.loads(file.read_text("utf-8"))
        except (ValueError, RecursionError) as error:
            raise RunFolderRefused(f"{file}: is damaged, no JSON ({error})") from error
        if not isinstance(manifest, dict):
            raise RunFolderRefused(f"{file}: is damaged, no JSON object")
        return manifest

    def update_manifest(self, **entries: Any) -> None:
        """Add entries to ``run.json``, atomically."""
        text = to_json(self.read_manifest() | entries, indent=2)
        with write_atomically(self.path / "run.json", "w") as file:
            file.write(text + "\n")


@contextmanager
def open_run_folder(
    out: Path,
    config: BaseModel,
    *,
    resume: bool = False,
    overwrite: bool = False,
    places: Collection[str] = (),
) -> Iterator[RunFolder]:
    """Create or reopen the folder of a run, and hold its lock.

    The same command continues an interrupted run: a folder whose ``config.yaml`` equals ``config``
    and whose run has not finished is taken up where it stopped. ``resume`` insists on that (an
    error where there is nothing to resume); ``overwrite`` starts anew.

    Args:
        out: the folder.
        config: what the run is asked to do.
        resume: refuse to start anew.
        overwrite: delete the run that is there.
        places: keys of ``config`` (``common.coco``) that say where something lies. It may have
            moved: the caller proves its contents by hashes, and then calls ``note_moves``.

    Raises:
        RunFolderRefused: not a folder or not writable; held by a live run; files of another run or
            of none; another configuration (the differences are named); already finished.
    """
    if out.exists() and not out.is_dir():
        raise RunFolderRefused(f"--out {out}: is a file, not a folder")
    if resume and not (out / "config.yaml").is_file():
        raise RunFolderRefused(f"--resume: nothing to resume in {out} (no config.yaml there)")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise RunFolderRefused(f"--out {out}: cannot be written ({error.strerror})") from error
    with lock, ExitStack() as at_end:
        if not took_lock(lock):
            lock.seek(0)
            raise RunFolderRefused(f"--out {out}: held by a live run ({lock.read()})")
        at_end.callback(lock.truncate, 0)  # a folder that may be handed on names no machine
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}")
        lock.flush()
        if overwrite:
            _empty(out)
        moved = require_same_run(out, config, places)
        for stale in [*out.rglob(HALF_WRITTEN)]:  # left by a kill in the middle of a write
            run = _run_of(stale)
            if run == out or not is_held(run / LOCK):  # a run inside this one may be alive
                stale.unlink()
        folder = RunFolder(out, tuple(moved))
        if not (out / "config.yaml").is_file():
            folder.write_config(config)
        yield folder


def _run_of(file: Path) -> Path:
    """Return the innermost run folder that a file lies in."""
    return next(folder for folder in file.parents if (folder / LOCK).is_file())


def require_same_run(out: Path, config: BaseModel, places: Collection[str] = ()) -> list[str]:
    """Return what has moved since the last time, and write nothing.

    Args:
        out: may be absent.
        config: what the run is asked to do.
        places: keys that may differ; see ``open_run_folder``.

    Raises:
        RunFolderRefused: not a run; another configuration (the differences are named); already
            finished.
    """
    saved = out / "config.yaml"
    if not saved.is_file():
        others = _contents(out) if out.is_dir() else []
        if others:
            raise RunFolderRefused(
                f"--out {out}: not empty ({others[0]}) and not a run; use a new folder"
            )
        return []
    before = read_config(saved, type(config))
    # The saved file went through YAML; send ours the same way so that equal means equal.
    differences = config_differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
    moved = [line for line in differences if line.partition(": ")[0] in places]
    if other := [line for line in differences if line not in moved]:
        raise RunFolderRefused(
            f"--out {out}: holds a run of another configuration ({'; '.join(other[:5])}); "
            "use --overwrite or a new folder"
        )
    if RunFolder(out).read_manifest().get("status") == "finished":
        raise RunFolderRefused(f"--out {out}: this run has finished; use --overwrite or another")
    return moved


def exit_code_of(prog: str, out: Path, run: Callable[[], int]) -> int:
    """Return the exit code of a training; what ended it by force is said in one line.

    Args:
        prog: the command.
        out: the folder of the run.
        run: trains, returns the exit code; see ``train`` for what it raises.
    """
    try:
        return run()
    except ValueError as error:
        refuse(prog, str(error))
    except (FloatingPointError, MemoryError, RankLost) as error:
        words, code = f"{str(error) or 'out of memory'}; {what_goes_on(out)}", 1
    except OSError as error:
        words, code = fault_words(error, out), 1
    except KeyboardInterrupt:
        words, code = f"stopped at once; {what_goes_on(out)}", 130
    print(f"{prog}: {words}", file=sys.stderr)
    return code


def what_goes_on(out: Path, kept: str = "") -> str:
    """Return what the same command does once a run has ended by force, in words.

    Args:
        out: its folder.
        kept: what it goes on from; "": the last checkpoint, if there is one.
    """
    if not kept and not RunFolder(out).last.is_file():
        return "no checkpoint was written yet; the same command begins anew"
    return f"{kept or 'the last checkpoint'} is whole, and the same command goes on from it"


def fault_words(error: OSError, out: Path, kept: str = "") -> str:
    """Return one line for what a disk did to a run: the file, the reason, the room that is left.

    Args:
        error: that ended the run.
        out: its folder.
        kept: see ``what_goes_on``.
    """
    try:
        free = f"{shutil.disk_usage(out).free} bytes are free there"
    except OSError:
        free = "the folder is out of reach"
    where = error.filename or out
    return f"{where}: {error.strerror or error} ({out}: {free}); {what_goes_on(out, kept)}"


def _contents(out: Path) -> list[str]:
    """Return the names in a folder, but for what a killed first attempt leaves there."""
    names = sorted(child.name for child in out.iterdir())
    return [n for n in names if n != LOCK and not (n.startswith(".") and n.endswith(".part"))]


def _empty(out: Path) -> None:
    if not (out / "config.yaml").is_file() and _contents(out):
        raise RunFolderRefused(f"--overwrite {out}: not a run folder, so nothing is deleted")
    # The configuration goes last: until then, this can be killed and begun again.
    for name in sorted(_contents(out), key=lambda name: name == "config.yaml"):
        child = out / name
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
