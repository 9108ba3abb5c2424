"""What a run is not reproduced from, or not with: one line, before the first step."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lesion_det.train_det import main as train_det
from tests.reproduction.both_trainings import rewrite
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.train_ubr import main as train_ubr

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("reproduction")]


def last_line(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """Return the one line with which a command ends, behind those of reading the data."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.splitlines()[-1]


class TestWhatIsNotReproduced:
    """Exit code 2 and one line, before or instead of any training."""

    def line(self, run: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
        return last_line(train_ubr, capsys, f"--reproduce={run}", *flags)

    @pytest.mark.parametrize(
        ("lost", "words"),
        [
            ("config.yaml", "is no folder of a run (no config.yaml there)"),
            ("run.json", "its run.json cannot be read"),
            ("metrics.jsonl", "lacks its metrics.jsonl"),
            ("checkpoints/last.safetensors", "lacks its checkpoints/last.safetensors"),
        ],
    )
    def test_N62_a_folder_without_what_a_run_leaves_is_refused(
        self, lost: str, words: str, ubr: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`--reproduce` of a folder that lacks its configuration, manifest, metrics or weights: one
        line, exit code 2.
        """
        (ubr / lost).unlink()
        assert words in self.line(ubr, capsys)

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ('"status": "finished"', '"status": "interrupted"', "did not finish (run.json: inter"),
            ('"world_size": 1', '"world_size": 4', "was trained by 4 processes, here are 1"),
            ("{", "[", "its run.json cannot be read"),
        ],
    )
    def test_N62_a_run_that_is_not_whole_is_refused(
        self, old: str, new: str, words: str, ubr: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`--reproduce` of a run that did not finish, of other ranks or with a damaged manifest:
        one line, exit code 2.
        """
        rewrite(ubr / "run.json", old, new)
        assert words in self.line(ubr, capsys)

    def test_N62_a_run_of_the_other_training_is_refused(
        self, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`train_ubr.py --reproduce` of a detector's run: one line that says so, exit code 2."""
        assert "is no run of this version of train_ubr.py" in self.line(runs["detector"], capsys)

    def test_N62_settings_and_folder_of_a_run_are_its_own(
        self, ubr: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Another setting beside `--reproduce`, or the run's own folder as `--out`: one line, exit
        code 2, nothing is deleted.
        """
        assert "its settings cannot be changed: seed: 0 -> 1" in self.line(ubr, capsys, "--seed=1")
        for out in (ubr, ubr / "again", ubr.parent):
            line = self.line(ubr, capsys, f"--out={out}", "--overwrite")
            assert "is the same folder or inside it" in line
        assert (ubr / "checkpoints/last.safetensors").is_file()

    @pytest.mark.parametrize("change", ["gone", "new", "other"])
    def test_N63_other_volumes_are_not_trained_on(
        self, change: str, data: Path, ubr: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Data that are not those of the run are refused before the first step, and the volume is
        named (exit code 2).
        """
        moved = shutil.copytree(data / "ct", tmp_path / "moved")
        words = {
            "gone": "volume p2 is not in the data any more",
            "new": "volume p9 was not in the data of the run",
            "other": "volume p2 is not what it was: SHA-256 ",
        }
        if change == "gone":
            (moved / "p2.nii").unlink()
        else:
            name = "p9.nii" if change == "new" else "p2.nii"
            shutil.copy(moved / "p3.nii", moved / name)
        assert words[change] in self.line(ubr, capsys, f"--data={moved}")
        again = ubr.with_name("run-reproduced")
        assert read_metrics(again / "metrics.jsonl") == []
        assert json.loads((again / "run.json").read_text())["status"] != "finished"

    def test_N63_other_images_are_not_trained_on(
        self,
        data: Path,
        runs: dict[str, Path],
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        """COCO files or slices other than those of the run are refused (exit code 2)."""
        moved = shutil.copytree(data / "lesions", tmp_path / "moved")
        rewrite(moved / "coco/val.json", '"id": 1', '"id":  1')
        flags = [f"--reproduce={runs['detector']}", f"--coco={moved / 'coco'}"]
        line = last_line(train_det, capsys, *flags, f"--out={tmp_path / 'again'}")
        assert "the COCO files that it was validated on are not those of the run" in line

    def test_N63_data_that_moved_are_the_same_data(
        self, data: Path, ubr: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """The same volumes in another folder are trained on once they are named by `--data`."""
        moved = shutil.copytree(data / "ct", tmp_path / "moved")
        assert train_ubr([f"--reproduce={ubr}", f"--data={moved}"]) == 0
        assert capsys.readouterr().out.endswith("equal bit for bit\n")

    def test_N62_weights_that_were_damaged_are_found_before_the_first_step(
        self, ubr: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A damaged checkpoint of the run is refused before anything is trained (exit code 2)."""
        best = ubr / "checkpoints/best.safetensors"
        whole = best.read_bytes()
        best.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert "E-CKPT-HASH" in self.line(ubr, capsys)
        assert read_metrics(ubr.with_name("run-reproduced") / "metrics.jsonl") == []
