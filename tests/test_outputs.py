"""Files that commands write: whole or not there, plain JSON, the same bytes everywhere."""

import ast
import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from converters.audit_coco import main as audit_main
from converters.coco import lesions_to_coco, write_coco
from converters.deeplesion_to_coco import main as convert_main
from converters.export_backbone import main as export_main
from converters.verified_export import export_backbone
from lesion_det.evaluate_det import main as evaluate_main
from lesion_det.predictions import write_predictions
from lesion_det.report import write_report
from tests.lesion_det.toy_report import tiny_evidence, tiny_record
from tests.lesion_det.toy_split import toy_predictions
from tests.small_disk import SmallDisk, small_disk
from tests.source_code import ROOT, calls, dotted, nodes, says
from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.scan_pages import grey_volume, scored
from tests.ubr_pretrain.stored_volumes import scan
from tests.ubr_pretrain.test_score_tables import NO_ZONES, WHOLE, Archive
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import Volume
from ubr_pretrain.figures import draw_scores
from ubr_pretrain.nifti_file import write_volume
from ubr_pretrain.phantom_cohort import main as phantoms_main
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import to_json
from ubr_pretrain.scan_page import write_scan_page
from ubr_pretrain.score_tables import write_tables
from ubr_pretrain.slice_store import Refusal, StoredVolume
from ubr_pretrain.spreadsheet import FORMULA_STARTS
from ubr_pretrain.training_data import _write_manifest
from ubr_pretrain.volumes import read_volume
from ubr_pretrain.whole_file import write_atomically

VOLUME = grey_volume(12)
SCORED = scored(VOLUME)
PLACE_LPS = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 1]])
CROP = Volume(scan((9, 40, 40)), (5.0, 1.0, 1.0), affine_lps=PLACE_LPS)

WRITERS: dict[str, Callable[[Path], object]] = {
    "report.html": lambda out: write_report(
        out.parent, tiny_record(), tiny_evidence(), np.random.default_rng(0)
    ),
    "scores.csv": lambda out: write_tables(Archive(out.parent, [WHOLE]), ["csv"]),
    "scores.json": lambda out: write_tables(Archive(out.parent, [WHOLE]), ["json"]),
    "scores.parquet": lambda out: write_tables(Archive(out.parent, [WHOLE]), ["parquet"]),
    "curve.png": lambda out: draw_scores(VOLUME, SCORED.curve, out, "scan"),
    "scan.html": lambda out: write_scan_page(VOLUME, SCORED, out),
    "crop.nii.gz": lambda out: write_volume(CROP, out),
    "predictions.json": lambda out: write_predictions(out, toy_predictions([[]])),
    "val.json": lambda out: write_coco(out, lesions_to_coco([], "val", "a", "b")),
    "w.safetensors": lambda out: write_checkpoint(out, {"iteration": 1}, "ubr"),
}


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("disk") / "full", 1) as disk:
        for name in WRITERS:
            (disk.path / name).write_text("before")
        disk.fill()
        yield disk


@pytest.mark.parametrize("name", WRITERS)
def test_S06_a_full_disk_is_an_error_and_the_file_before_stays(
    name: str, full_disk: SmallDisk
) -> None:
    """An error; the file that was there stays, no half one at its name, no rest of a temporary."""
    before = sorted(path.name for path in full_disk.path.iterdir())
    with pytest.raises(OSError, match=r"No space left|disk full|[Ee]rror|write"):
        WRITERS[name](full_disk.path / name)
    assert (full_disk.path / name).read_text() == "before"
    assert sorted(path.name for path in full_disk.path.iterdir()) == before


EXPORTS = (("a.pth", "torchvision"), ("b.pkl", "detectron2"), ("c.safetensors", "ubr"))


def test_S06_an_export_on_a_full_disk_leaves_nothing(full_disk: SmallDisk, tmp_path: Path) -> None:
    """The same for exported weights, their card and their description."""
    checkpoint = write_toy_checkpoint(tmp_path / "best.safetensors")
    before = sorted(path.name for path in full_disk.path.iterdir())
    for name, layout in EXPORTS:
        with pytest.raises(OSError, match="No space left"):
            export_backbone(checkpoint, full_disk.path / name, layout)
    assert sorted(path.name for path in full_disk.path.iterdir()) == before


GOLDEN = ROOT / "tests" / "converters" / "golden"
TABLE = str(GOLDEN / "DL_info.csv")
COMMANDS: dict[str, tuple[set[str], Callable[[Path, Path], int]]] = {
    "export_backbone": (
        {"a.safetensors", "a.safetensors.md"},
        lambda disk, out: export_main([str(disk / "best"), str(out / "a.safetensors")]),
    ),
    "deeplesion_to_coco": (
        {"train.json", "val.json", "test.json", "conversion.json"},
        lambda _, out: convert_main([TABLE, "--out", str(out)]),
    ),
    "audit_coco": (
        {"audit.json", "audit.md"},
        lambda _, out: audit_main(
            [str(GOLDEN / "train.json"), "--table", TABLE, "--out", str(out)]
        ),
    ),
    "evaluate_det": (
        {"metrics.json"},
        lambda disk, out: evaluate_main(
            ["--predictions", str(disk / "none.json"), "--coco", str(GOLDEN / "test.json"),
             "--out", str(out)]
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_S06_a_full_disk_leaves_all_files_of_a_command_or_none(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With room for none, some, then all files of export_backbone, deeplesion_to_coco, audit_coco
    and evaluate_det: all are there, or none, code 1 and one line with the file and the reason."""
    names, run = COMMANDS[command]
    with small_disk(tmp_path / "disk") as disk:
        write_toy_checkpoint(disk.path / "best")
        (disk.path / "none.json").write_text("[]")
        for pages in (0, 1, 2, 3, 4, 1024):
            out = disk.path / f"{pages}"
            disk.fill(4096 * pages)
            try:
                code, stopped = run(disk.path, out), False
            except SystemExit as end:
                code, stopped = int(end.code or 0), True
            disk.tidy()
            assert code in ([1] if stopped else [0, 1])  # 1: also rows that the table refuses
            found = {str(path.relative_to(out)) for path in out.rglob("*")}
            assert found == (set() if stopped else names)
            if not stopped:
                break
            said = capsys.readouterr().err.splitlines()[-1]
            assert said.startswith(f"{command}.py: error: {out}/")
            file, _, reason = said.removeprefix(f"{command}.py: error: {out}/").partition(": ")
            assert (file in names, reason) == (True, "No space left on device")
        assert not stopped
        assert pages >= len(names)


def test_S06_phantoms_on_a_full_disk_name_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """make_phantoms on a disk with room for its record alone: one line with the volume, code 1."""
    with small_disk(tmp_path / "disk", 1) as disk:
        disk.fill(4096)
        asked = ["--subjects", "1", "--matrix", "32", "--max-slices", "8", "--region", "chest"]
        assert phantoms_main([str(disk.path / "out"), *asked]) == 1
        assert [path.name for path in disk.path.rglob("*.*")] == ["phantoms.json"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(disk.path / "out" / "ct") in said[0]
    assert "full" in said[0]


def writes(node: ast.Call | ast.Import | ast.ImportFrom) -> str:
    """Return the name of a call that writes to the name it is given, "" of any other."""
    name = dotted(node.func) if isinstance(node, ast.Call) else ""
    if name.endswith((".write_text", ".write_bytes", "cv2.imwrite", ".tofile", "np.save")):
        return name
    if name.rpartition(".")[2] == "open" and isinstance(node, ast.Call):
        modes = {str(given.value) for given in node.args if isinstance(given, ast.Constant)}
        return name if modes & {"w", "wb", "x", "xb", "w+"} else ""
    return ""


def test_S06_nothing_is_written_to_its_final_name() -> None:
    """No source opens a result for writing: all go through a temporary that is renamed; logs and
    journals are appended to. SimpleITK, which hides a full disk, writes to a temporary alone."""
    in_packages = [(file, node) for file, node in calls() if not file.startswith("examples")]
    assert [(file, name) for file, node in in_packages if (name := writes(node))] == []
    by_itk = {
        file
        for file, node in in_packages
        if isinstance(node, ast.Call) and dotted(node.func) == "sitk.WriteImage"
    }
    assert by_itk == {"ubr_pretrain/nifti_file.py"}
    assert all(map(writes, nodes("p.open('w'); p.write_text(t); cv2.imwrite(n, a)")))


def test_S02_a_volume_written_from_dicom_carries_no_element_of_it(tmp_path: Path) -> None:
    """What is written from DICOM (NIfTI alone) is made of voxels and their places: its header has
    no text of the patient, in any field."""
    write_series(tmp_path / "in", scan((6, 40, 40)), StudyDescription="Doe ward")
    volume = read_volume(tmp_path / "in")
    write_volume(volume, tmp_path / "out.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    texts = " ".join(image.GetMetaData(key) for key in image.GetMetaDataKeys())
    for secret in ("Doe", "Jane", "MRN-4711", "1.2.826", "ward"):
        assert secret not in texts


def test_S07_every_json_that_is_written_refuses_nan() -> None:
    """Every json.dump of the packages has allow_nan=False, but one whose text is only hashed."""
    dumps = [
        (file, says(node, "allow_nan", False))
        for file, node in calls()
        if isinstance(node, ast.Call) and dotted(node.func) in ("json.dump", "json.dumps")
    ]
    assert len(dumps) >= 8
    loose = {file for file, strict in dumps if not strict and not file.startswith("examples")}
    assert loose <= {"ubr_pretrain/slice_files.py"}


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_S05_subjects_and_reasons_of_a_run_are_no_formulas(start: str, tmp_path: Path) -> None:
    """The same in manifest.csv of a training, and a carriage return ends no row: what subjects and
    reasons hold comes from outside."""
    subject = f"{start}1+1"
    volume = StoredVolume("a", subject, tmp_path, tmp_path / "a.npy", (0.0,), 1.0, "0" * 64)
    refused = Refusal("b", "E-X", f"{start}cause")
    _write_manifest(RunFolder(tmp_path), [volume], [], [refused])
    with (tmp_path / "manifest.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert first["subject"] == f"'{subject}".replace("\r", "\n")
    assert second["reason"] == f"E-X {start}cause".replace("\r", "\n")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@given(VALUES)
def test_S07_json_is_read_back_equal_or_refused(value: Any) -> None:
    """Any plain value is written as JSON that any reader takes, or refused where NaN or infinity is
    in it; never as a bare NaN."""

    def no_such_number(name: str) -> None:
        raise AssertionError(name)

    if is_finite(value):
        assert json.loads(to_json(value), parse_constant=no_such_number) == value
    else:
        with pytest.raises(ValueError, match="JSON"):
            to_json(value)


ELSEWHERE = """
import locale, pathlib, sys
locale.setlocale(locale.LC_ALL, "")
assert locale.str(1.5) == "1,5"
from tests.test_outputs import write_all
write_all(pathlib.Path(sys.argv[1]))
"""


def write_all(out: Path) -> None:
    """Write tables, JSON and COCO files."""
    out.mkdir()
    assert convert_main([TABLE, "--out", str(out / "coco")]) == 1
    write_tables(Archive(out, [WHOLE, NO_ZONES]), ["csv", "json"])


def all_files(out: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in out.rglob("*.*")}
    assert len(files) == 7
    assert not [name for name, data in files.items() if b"\r" in data]
    return files


@pytest.fixture
def german(tmp_path: Path) -> dict[str, str]:
    """A locale with decimal commas, made where there are the means."""
    made = tmp_path / "locales" / "de_DE.UTF-8"
    made.parent.mkdir()
    command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(made)]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs localedef and the sources of locales")
    return {"LOCPATH": str(made.parent), "LC_ALL": "de_DE.UTF-8", "PYTHONUTF8": "0"}


def test_S09_a_decimal_comma_changes_no_byte(tmp_path: Path, german: dict[str, str]) -> None:
    """Under a locale with decimal commas tables, JSON and COCO files have the same bytes."""
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "there")]
    subprocess.run(command, cwd=ROOT, env=os.environ | german, check=True, capture_output=True)
    write_all(tmp_path / "here")
    assert all_files(tmp_path / "there") == all_files(tmp_path / "here")


def test_S09_a_umask_changes_no_byte(tmp_path: Path) -> None:
    """Under umask 077 tables, JSON and COCO files have the same bytes, and who may read them is
    what the umask says."""
    write_all(tmp_path / "here")
    before = os.umask(0o077)
    try:
        write_all(tmp_path / "there")
    finally:
        os.umask(before)
    here, there = all_files(tmp_path / "here"), all_files(tmp_path / "there")
    assert here == there
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "there").rglob("*.*")} == {0o600}
    for golden in GOLDEN.glob("*.json"):
        assert here[golden.name] == golden.read_bytes()


def test_S09_text_files_end_their_lines_alike_on_every_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines end in one byte also where the system's own end is two (Windows)."""
    plain, asked = os.fdopen, []

    def fdopen(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs)
        return plain(*args, **kwargs)

    monkeypatch.setattr(os, "fdopen", fdopen)
    with write_atomically(tmp_path / "a", "w") as file:
        file.write("a\nb\n")
    assert asked == [{"encoding": "utf-8", "newline": "\n"}]
