"""Who may write a run folder, and when a run goes on."""

import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ubr_pretrain.config import Config, read_config
from ubr_pretrain.run_folder import LOCK, RunFolderRefused, open_run_folder, require_same_run


class Small(Config):
    lr: float = 0.1
    names: tuple[str, ...] = ("a",)


def test_a_new_folder_holds_the_config_it_was_asked_for(tmp_path):
    with open_run_folder(tmp_path / "run", Small(lr=0.3)) as folder:
        assert "lr: 0.3" in (folder.path / "config.yaml").read_text()


def test_T11_the_same_command_goes_on_and_another_configuration_is_named(tmp_path):
    """Other settings in the folder of a run: refused, each with its old and new value."""
    for _ in range(2):
        with open_run_folder(tmp_path / "run", Small()) as folder:
            folder.update_manifest(status="interrupted")
    with (
        pytest.raises(RunFolderRefused, match=r"lr: 0\.1 -> 0\.5"),
        open_run_folder(tmp_path / "run", Small(lr=0.5)),
    ):
        pass
    with open_run_folder(tmp_path / "run", Small(lr=0.5), overwrite=True) as folder:
        assert folder.read_manifest() == {}


def test_T10_resume_with_nothing_there_is_an_error(tmp_path):
    """--resume where no run is: refused, and no folder is made; never begun anew."""
    with (
        pytest.raises(RunFolderRefused, match="nothing to resume"),
        open_run_folder(tmp_path / "run", Small(), resume=True),
    ):
        pass
    assert not (tmp_path / "run").exists()


def test_T09_a_folder_of_something_else_is_refused_and_never_emptied(tmp_path):
    """A folder with other files is refused, with --overwrite too; nothing in it is touched."""
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with (
            pytest.raises(RunFolderRefused, match=r"thesis.txt|not a run folder"),
            open_run_folder(tmp_path, Small(), overwrite=overwrite),
        ):
            pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_T07_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    """--out that is a file: refused before any work."""
    (tmp_path / "out").write_text("x")
    with (
        pytest.raises(RunFolderRefused, match="is a file"),
        open_run_folder(tmp_path / "out", Small()),
    ):
        pass


def test_T09_a_finished_run_is_not_run_again(tmp_path):
    """A finished run is not begun again; --overwrite would."""
    with open_run_folder(tmp_path, Small()) as folder:
        folder.update_manifest(status="finished")
    with pytest.raises(RunFolderRefused, match="has finished"), open_run_folder(tmp_path, Small()):
        pass


def test_T08_a_live_run_holds_its_folder_and_a_dead_one_does_not(tmp_path):
    """A folder of a live run is refused, its pid and host named; when the run dies the folder is
    free, and a run that has ended well names neither."""
    code = (
        "import pathlib, sys, time\n"
        "from tests.ubr_pretrain.test_run_folder import Small\n"
        "from ubr_pretrain.run_folder import open_run_folder\n"
        "with open_run_folder(pathlib.Path(sys.argv[1]), Small()):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "held\n"
        holder = re.escape(f"held by a live run (pid {other.pid} on {platform.node()})")
        with (
            pytest.raises(RunFolderRefused, match=holder),
            open_run_folder(tmp_path, Small()),
        ):
            pass
        other.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with open_run_folder(tmp_path, Small()) as folder:
                assert folder.path == tmp_path
            assert (tmp_path / LOCK).read_text() == ""
            return
        except RunFolderRefused:
            time.sleep(0.1)
    pytest.fail("the lock outlived its owner")


def test_T02_a_half_written_file_of_a_killed_run_is_cleaned(tmp_path):
    """What a kill left half-written is never read, and removed when the run goes on."""
    with open_run_folder(tmp_path, Small()):
        pass
    stale = tmp_path / "checkpoints" / ".last.safetensors.x.part"
    stale.parent.mkdir()
    stale.write_bytes(b"half")
    with open_run_folder(tmp_path, Small()):
        assert not stale.exists()


def test_T02_N32_a_run_killed_in_its_first_moments_is_begun_anew(tmp_path):
    """A folder that holds nothing but a half-written configuration counts as empty."""
    half = tmp_path / ".config.yaml.x1y2z3.part"
    for overwrite in (False, True):
        half.write_text("lr: 0.")
        with open_run_folder(tmp_path, Small(), overwrite=overwrite) as folder:
            assert folder.read_manifest() == {}
        assert not half.exists()
        (tmp_path / "config.yaml").unlink()


def test_T01_N33_overwriting_that_is_killed_can_be_begun_again(tmp_path, monkeypatch):
    """While ``--overwrite`` deletes a run, the folder stays one that it may delete."""
    unlink, left = Path.unlink, 0

    def dies(self, *args, **kwargs):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        unlink(self, *args, **kwargs)

    for kills in range(1, 10):
        with open_run_folder(tmp_path, Small()) as folder:
            for name in "abcdefgh":
                (tmp_path / name).touch()
            folder.write_config(Small())  # now among the first that are listed, or among the last
        monkeypatch.setattr(Path, "unlink", dies)
        left = kills
        with (
            pytest.raises(KeyboardInterrupt),
            open_run_folder(tmp_path, Small(), overwrite=True),
        ):
            pass
        monkeypatch.setattr(Path, "unlink", unlink)
        with open_run_folder(tmp_path, Small(), overwrite=True):
            assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.yaml"]


def test_T02_half_written_file_of_a_run_inside_is_left_to_it_as_long_as_it_lives(tmp_path):
    """Cleaned by the comparison around a finished cell; a cell that is alive keeps its own."""
    inside = tmp_path / "cells" / "a"
    with open_run_folder(tmp_path, Small()), open_run_folder(inside, Small()):
        pass
    being_written = inside / "checkpoints" / ".last.safetensors.x.part"
    being_written.parent.mkdir()
    with open_run_folder(inside, Small()):
        being_written.write_bytes(b"half")
        with open_run_folder(tmp_path, Small()):
            assert being_written.exists()
    with open_run_folder(tmp_path, Small()):
        assert not being_written.exists()


def test_a_place_may_move_and_is_noted_once_the_caller_says_so(tmp_path):
    with open_run_folder(tmp_path, Small(names=("here",))) as folder:
        assert folder.moved == ()
    with (
        pytest.raises(RunFolderRefused, match=r"names: \['here'\] -> \['there'\]"),
        open_run_folder(tmp_path, Small(names=("there",))),
    ):
        pass
    there = Small(names=("there",))
    for _ in range(2):  # as long as nobody knows that the contents are the same, it is not noted
        with open_run_folder(tmp_path, there, places={"names"}) as folder:
            assert folder.moved == ("names: ['here'] -> ['there']",)
            assert "here" in (tmp_path / "config.yaml").read_text()
    with open_run_folder(tmp_path, there, places={"names"}) as folder:
        folder.note_moves(there)
    with open_run_folder(tmp_path, there) as folder:
        assert folder.moved == ()
        folder.note_moves(Small(lr=0.5))  # nothing moved, nothing is written
    with (
        pytest.raises(RunFolderRefused, match=r"configuration \(lr: 0\.1 -> 0\.5\)"),
        open_run_folder(tmp_path, Small(lr=0.5, names=("here",)), places={"names"}),
    ):
        pass
    assert read_config(tmp_path / "config.yaml", Small) == there


def test_asking_whether_a_run_would_go_on_writes_nothing(tmp_path):
    assert require_same_run(tmp_path / "absent", Small()) == []
    assert not (tmp_path / "absent").exists()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderRefused, match="thesis"):
        require_same_run(tmp_path, Small())
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]
