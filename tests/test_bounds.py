"""What a file says leads nowhere else and fills no memory: names, sizes, nesting."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from converters.coco_audit import audit_coco
from converters.deeplesion import read_deeplesion
from converters.foreign_coco import read_foreign_coco
from lesion_det.evaluate_det import main as evaluate_det
from lesion_det.ground_truth import GroundTruthRefused, read_ground_truth
from lesion_det.image_names import require_inside
from lesion_det.predictions import read_coco_results, read_predictions
from lesion_det.slices import read_slice
from lesion_det.train_det import main as train_det
from tests.command_line import refused_line
from tests.converters.conftest import png_bytes
from tests.converters.planted import small_table
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_split import toy_coco, toy_ground_truth
from ubr_pretrain.anchors import read_anchors
from ubr_pretrain.bounded_file import MAX_COCO_BYTES
from ubr_pretrain.calibration import read_calibration
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint
from ubr_pretrain.config import read_config
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.foreign_weights import read_foreign_weights
from ubr_pretrain.key_slices import read_key_slices
from ubr_pretrain.landmarks import read_landmarks
from ubr_pretrain.plain_yaml import MAX_YAML_DEPTH
from ubr_pretrain.score_archive import of_line, open_archive, to_line
from ubr_pretrain.slice_classes import read_slice_classes
from ubr_pretrain.train_ubr import main as train_ubr
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.volumes import find_volumes

OUTSIDE = (
    "../secret/010.png",
    "000001_01_01/../../secret/010.png",
    "/etc/010.png",
    "//etc/010.png",
    "C:/secret/010.png",
    "c:010.png",
    "\\\\host\\share\\010.png",
    "..\\secret\\010.png",
    "000001_01_01\\010.png",
    "000001_01_01/010.png\0.png",
    "..",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_N11_a_file_name_of_a_ground_truth_leads_nowhere_else(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training and evaluation end with exit code 2 and one line that names the file and the name;
    what lies outside the folder of images is not opened, however the name leads there."""
    toy = write_toy_deeplesion(tmp_path, {"train": 2, "val": 1})
    coco = json.loads((toy.coco / "train.json").read_text())
    coco["images"][0]["file_name"] = name
    (toy.coco / "train.json").write_text(json.dumps(coco))
    with pytest.raises(GroundTruthRefused, match=r"images\.0\.file_name: .* leaves the folder of"):
        read_ground_truth(toy.coco / "train.json")
    common = ["--images", str(toy.images), "--out", str(tmp_path / "out")]
    for main, more in (
        (train_det, ["--coco", str(toy.coco), "--width", "0.1"]),
        (evaluate_det, ["--coco", str(toy.coco / "train.json"), "--checkpoint", "any"]),
    ):
        assert "leaves the folder of images" in refused_line(main, capsys, [*more, *common])
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("checkpoints/*"))


STEPS = st.lists(st.sampled_from(["..", ".", "/", "a", "\\", "C:", "\0"])).map("".join)


@given(st.text(max_size=12) | STEPS)
def test_N11_a_name_that_is_taken_stays_below_its_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    """Any name that is not refused stays below the folder, whatever the folder is."""
    try:
        require_inside(name)
    except ValueError:
        return
    top = Path("/data/images")
    assert os.path.commonpath([os.path.normpath(top / name), top]) == str(top)


def test_N11_an_audit_opens_no_file_that_a_coco_file_names(tmp_path: Path) -> None:
    """Names of a stranger's COCO file are compared with the table's, never opened: one that leads
    elsewhere is the slice that it ends in, or E-NAME."""
    table = small_table(tmp_path / "DL_info.csv", 3)
    os.mkfifo(tmp_path / "000001_01_01_020.png")  # opening it would wait for ever
    coco = toy_coco(2)
    coco["images"][0]["file_name"] = str(tmp_path / "000001_01_01_020.png")
    coco["images"][1]["file_name"] = "../../../etc/passwd"
    (tmp_path / "val.json").write_text(json.dumps(coco))
    audit = audit_coco([tmp_path / "val.json"], table)
    assert "E-NAME" in {defect.code for defect in audit.defects}


def test_N11_starting_anew_deletes_nothing_outside_the_folder(tmp_path: Path) -> None:
    """--overwrite deletes the pictures and pages of the names in a journal, in its own folder: a
    journal whose names lead elsewhere deletes nothing there."""
    out = tmp_path / "scores"
    with open_archive(out, {}) as archive:
        archive.add("volumes", "a", "p", "c", {"volume": "a"})
    line = of_line((out / "scores.jsonl").read_bytes().splitlines(keepends=True)[1])
    victim = tmp_path / "victim.png"
    for name in ("../victim", str(tmp_path / "victim"), "..", ".", ""):
        victim.touch()
        named = {**line, "name": name, "record": {"volume": name}}
        (out / "scores.jsonl").write_bytes(to_line({"v": 1}) + to_line(named))
        with open_archive(out, {"other": 1}, overwrite=True):
            assert victim.exists()


def test_N11_a_folder_of_slices_has_a_name_that_is_one_word(tmp_path: Path) -> None:
    """Whatever a folder of slices is called, its name in tables, files and on the terminal has no
    control characters, blanks or turned letters."""
    folder = tmp_path / "\u202e=x\x1b[2J\n y"
    folder.mkdir()
    (folder / "001.png").write_bytes(png_bytes(8, 8))
    (entry,) = find_volumes([tmp_path])
    assert entry.name == "_x_2J_y"
    assert entry.subject == entry.name


def huge(path: Path, num_bytes: int = MAX_COCO_BYTES + 1, head: bytes = b"{") -> Path:
    """Make a file that claims its size without taking it."""
    path.write_bytes(head)
    os.truncate(path, num_bytes)
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "DL_info.csv": read_deeplesion,
    "val.json": read_ground_truth,
    "predictions.json": read_predictions,
    "results.json": lambda path: read_coco_results(path, toy_ground_truth([[]])),
    "foreign.json": read_foreign_coco,
    "calibration.json": read_calibration,
    "landmarks.csv": read_landmarks,
    "classes.csv": lambda path: read_slice_classes([path]),
    "anchors.csv": lambda path: read_anchors([path], {}),
    "key_slices.csv": read_key_slices,
}


@pytest.mark.parametrize("name", READERS)
def test_N12_a_table_or_json_of_absurd_size_is_refused_unread(name: str, tmp_path: Path) -> None:
    """Refused with its size and the limit (E-SIZE-LIMIT) before a byte of it is in memory."""
    with pytest.raises(ValueError, match=rf"{name}: E-SIZE-LIMIT  1,073,741,825 bytes, at most"):
        READERS[name](huge(tmp_path / name))


def test_N12_a_description_beside_weights_has_a_ceiling(tmp_path: Path) -> None:
    """The same for the .json beside a weight file, and for a table of subjects beside a volume."""
    torch.save({}, tmp_path / "w.pth")
    huge(tmp_path / "w.json")
    with pytest.raises(ValueError, match=r"w\.json: E-SIZE-LIMIT"):
        read_foreign_weights(tmp_path / "w.pth")
    huge(tmp_path / "manifest.csv")
    (tmp_path / "a.nii").write_bytes(b"x" * 400)
    with pytest.raises(VolumeRefused, match="E-SIZE-LIMIT"):
        find_volumes([tmp_path / "a.nii"])


@pytest.mark.parametrize("length", [2**63, 2**40, 2**31, 200_000_000])
def test_N12_a_weight_file_with_an_absurd_header_is_refused(length: int, tmp_path: Path) -> None:
    """A safetensors header that claims more than there can be is refused at once, file named."""
    path = tmp_path / "w.safetensors"
    huge(path, 300_000_000, length.to_bytes(8, "little"))
    with pytest.raises(CheckpointRefused, match=r"w\.safetensors: not a whole safetensors file"):
        read_checkpoint(path, "ubr")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (2**31 - 1, 1), (4097, 1)])
def test_L21_N12_a_slice_of_absurd_size_reaches_no_decoder(
    width: int, height: int, tmp_path: Path
) -> None:
    """E-SIZE-LIMIT from the header also where the detector reads it; OpenCV would take 3.5 GB."""
    content = bytearray(png_bytes(8, 8))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "010.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"E-SIZE-LIMIT .*010\.png"):
        read_slice(tmp_path / "010.png")


def bomb() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(), r"has an alias \(\*a\)"),
        ("[" * 100_000, "nested deeper than 20"),
        ("- " * (MAX_YAML_DEPTH + 1), "nested deeper than 20"),
        ("#" * 1_000_001, "larger than 1000000 bytes"),
        ("seed: !!python/object/apply:os.mkdir [ran]", "not YAML"),
        ("seed: !!python/name:os.system ''", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_S12_S13_a_configuration_cannot_run_code_or_expand(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Python objects, aliases (nine lines of them are a thousand million values), deep nesting and
    size: refused, by --config with exit code 2 and one line, before anything is built of them."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_config(file, UbrConfig)
    for flags in (["--config", str(file)], [f"--config={file}"]):
        line = refused_line(train_ubr, capsys, [*flags, "--out", "out"])
        assert "c.yaml" in line
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
