"""Records that fuzzing found, made by code; and lesions as hypothesis draws them, with damage."""

import json
import pickle
import zipfile
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.coco import lesions_to_coco, read_coco, write_coco
from converters.deeplesion import read_deeplesion, write_deeplesion
from converters.lesions import DeepLesionRefused
from lesion_det.ground_truth import GroundTruthRefused, read_ground_truth
from tests.converters.strategies import lesion_lists
from tests.fuzz.record_cases import record_verdict
from tests.fuzz.record_mutators import csv_cells, json_values
from tests.fuzz.record_originals import ORIGINALS
from ubr_pretrain.anchors import read_anchors
from ubr_pretrain.calibration import read_calibration
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.config import refuse
from ubr_pretrain.foreign_file import read_foreign_file
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.landmarks import read_landmarks
from ubr_pretrain.place_slices import place_slices
from ubr_pretrain.score_archive import open_archive
from ubr_pretrain.slice_classes import read_slice_classes
from ubr_pretrain.slice_files import SliceFiles
from ubr_pretrain.ubr_config import Losses


def put(folder: Path, kind: str) -> None:
    for name, content in ORIGINALS[kind]().items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("kind", ["dl-info", "coco"])
@settings(max_examples=12, deadline=None)
@given(lesions=lesion_lists(), seed=st.integers(0, 2**32))
def test_N49_damaged_lesions_are_refused_or_what_the_file_says(
    tmp_path_factory, kind: str, lesions, seed: int
) -> None:
    """Refused with the file's name, or read as a plain parse of the table or JSON reads it."""
    folder = tmp_path_factory.mktemp("lesions")
    name, change = {"dl-info": ("DL_info.csv", csv_cells), "coco": ("coco.json", json_values)}[kind]
    path = folder / name
    if kind == "dl-info":
        write_deeplesion(path, lesions)
    else:
        split = lesions[0].key_slice.split
        write_coco(path, lesions_to_coco(lesions, split, "DL_info.csv", "0"))
    content, how = change(Random(seed), path.read_bytes())
    path.write_bytes(content)
    said, why = record_verdict(kind, folder)
    assert said in ("refused", "as a plain parse says"), (how, why)


def test_N49_a_record_of_the_store_is_used_as_it_was_written(tmp_path: Path) -> None:
    """Decoded again where one field was changed: a position of a slice is part of the training."""
    put(tmp_path, "store")
    files = SliceFiles(tmp_path / "a.npy")
    assert files.read_record()["z_mm"] == [0.0, 5.0, 10.0]
    record = json.loads(files.record.read_text())
    record["z_mm"][1] = 4.0
    files.record.write_text(json.dumps(record))
    assert files.read_record() is None
    files.record.write_text("[" * 100_000)
    assert files.read_record() is None


def test_N49_stored_slices_under_another_header_are_not_mapped(tmp_path: Path) -> None:
    """Decoded again: a flipped bit in numpy's own header ended the training with no file named."""
    put(tmp_path, "store")
    files = SliceFiles(tmp_path / "a.npy")
    record = files.read_record()
    assert record is not None
    assert files.fault(record, 32, hashed=False) is None
    content = bytearray(files.slices.read_bytes())
    content[6] ^= 2
    files.slices.write_bytes(content)
    assert files.fault(record, 32, hashed=False) is not None


@pytest.mark.parametrize(
    "line", [b"{", b"3", b"{}", b'{"name": "x", "record": 3}', b"\xff", b"[" * 100_000]
)
def test_N49_a_damaged_line_of_a_journal_of_scores_is_named(tmp_path: Path, line: bytes) -> None:
    """Exit code 2 with the journal and the byte: it was a traceback without a name."""
    put(tmp_path, "score-journal")
    path = tmp_path / "scores.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    with (
        pytest.raises(ValueError, match=f"scores.jsonl: the line at byte {len(first) + 1} is"),
        open_archive(tmp_path, {"weights": "a"}),
    ):
        pass
    with open_archive(tmp_path, {"weights": "a"}, overwrite=True) as archive:
        assert len(archive) == 0


@pytest.mark.parametrize("damage", [b"\xff\n", b"[" * 100_000 + b"\n"])
def test_N49_a_damaged_line_ends_the_curves_of_a_training(tmp_path: Path, damage: bytes) -> None:
    """The lines before it are shown, as where a crash cut the last one off."""
    put(tmp_path, "metrics")
    path = tmp_path / "metrics.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(first + b"\n" + damage + rest)
    assert [record["iteration"] for record in read_metrics(path)] == [0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("volume,index_sup_to_inf,coordinate_mm\na,1.5,3\n", "line 2: index_sup_to_inf 1.5"),
        ("volume,index_sup_to_inf,coordinate_mm\na,x,3\n", "could not convert"),
        ("volume,index_sup_to_inf,coordinate_mm\na,1,3,4\n", "t.csv"),
        ("volume,index_sup_to_inf,coordinate_mm\na,1,inf\n", "no finite number"),
        ("volume,index_sup_to_inf,coordinate_mm\n,1,3\n", "volume nan is empty"),
    ],
)
def test_N49_a_table_of_places_has_numbers_only(tmp_path: Path, text: str, words: str) -> None:
    """Exit code 2 with the file and the line; 1.5 was slice 1, and text ended in a traceback."""
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_anchors([path], {"a": [0.0, 5.0, 10.0]})
    assert "t.csv" in str(caught.value)


@pytest.mark.parametrize("damage", [b"a,\xff,1,1\n", b"a,0,x,1\n", b"a,0,5,1,7\n", b"a,0,5,\n"])
def test_N49_damaged_scores_place_no_slices(tmp_path: Path, damage: bytes) -> None:
    """Exit code 2 with scores.csv, and nothing is written."""
    put(tmp_path, "score-table")
    path = tmp_path / "scores.csv"
    path.write_bytes(path.read_bytes() + damage)
    with pytest.raises(ValueError, match=r"scores\.csv"):
        place_slices(tmp_path, tmp_path / "placed.csv", Losses())
    assert not (tmp_path / "placed.csv").exists()


def test_C03_a_flipped_bit_of_a_torch_file_fails_its_checksum(tmp_path: Path) -> None:
    """Refused with the part that is damaged: torch itself reads on, with other weights."""
    path = tmp_path / "w.pth"
    torch.save({"w": torch.arange(1000.0)}, path)
    with zipfile.ZipFile(path) as archive:
        (data,) = [info for info in archive.infolist() if info.filename.endswith("data/0")]
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(1000, dtype="<f4").tobytes()) + 400] ^= 8
    path.write_bytes(content)
    assert not torch.equal(torch.load(path, weights_only=True)["w"], torch.arange(1000.0))
    with pytest.raises(CheckpointRefused, match=f"{data.filename} fails its checksum"):
        read_foreign_file(path)


def test_N49_coco_files_hold_no_number_beyond_arrays_and_no_endless_nest(tmp_path: Path) -> None:
    """Refused with the file: such numbers and nests ended in tracebacks."""
    put(tmp_path, "coco-truth")
    path = tmp_path / "truth.json"
    sound = json.loads(path.read_text())
    for key, place in (("id", "annotations"), ("width", "images"), ("lesion_type", "annotations")):
        tree = json.loads(json.dumps(sound))
        tree[place][0][key] = 10**400
        path.write_text(json.dumps(tree))
        with pytest.raises(GroundTruthRefused, match=r"truth\.json"):
            read_ground_truth(path)
    path.write_text("[" * 100_000)
    with pytest.raises(DeepLesionRefused, match=r"truth\.json"):
        read_coco(path)


def test_L01_a_column_given_twice_is_refused(tmp_path: Path) -> None:
    """Refused with the column: nobody knows which of the two is meant."""
    put(tmp_path, "dl-info")
    path = tmp_path / "DL_info.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([f"{lines[0]},Spacing_mm_px_", *(f"{li},1" for li in lines[1:])]))
    with pytest.raises(DeepLesionRefused, match="column given twice: Spacing_mm_px_"):
        read_deeplesion(path)


def test_N43_a_complaint_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line: what a file holds is escaped, and cut where it is long."""
    with pytest.raises(SystemExit) as ended:
        refuse("score_volumes.py", "x.csv: a\nb\x1b[31m" + "y" * 9000)
    line = capsys.readouterr().err
    assert ended.value.code == 2
    assert line.startswith(r"score_volumes.py: error: x.csv: a\nb\x1b[31m")
    assert line.count("\n") == 1
    assert len(line) < 2100


@pytest.mark.parametrize("fault", ["kind", "sides", "order", "cut"])
def test_C01_a_pickled_array_in_an_impossible_state_is_refused(tmp_path: Path, fault: str) -> None:
    """Refused with the file's name: numpy's own unpickling of such a state ended the process."""
    sound = pickle.dumps({"model": {"w": np.arange(12.0)}}, protocol=2)
    old, new = {
        "kind": (b"f8", b"O8"),
        "sides": (b"K\x0c", b"K\x0d"),
        "order": (b"<", b"?"),
        "cut": (b"X", b"X"),
    }[fault]
    content = sound.replace(old, new, 1) if old != new else sound[: len(sound) // 2]
    path = tmp_path / "w.pkl"
    path.write_bytes(content)
    assert content != sound
    with pytest.raises(CheckpointRefused, match=r"w\.pkl"):
        read_foreign_file(path)


def test_C01_a_pickle_of_arrays_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    """Read: types, byte orders, sides and order in memory are those that were stored."""
    arrays = {
        "a": np.arange(24, dtype=">i2").reshape(2, 3, 4),
        "b": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
        "c": np.array(7, dtype=np.float16),
        "d": np.array([True, False]),
    }
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "shared": [arrays["a"]]}))
    (content, _) = read_foreign_file(path)
    for name, array in arrays.items():
        assert content["model"][name].dtype == array.dtype
        np.testing.assert_array_equal(content["model"][name], array)
    np.testing.assert_array_equal(content["shared"][0], arrays["a"])


def test_N49_a_calibration_without_a_number_is_refused(tmp_path: Path) -> None:
    """Exit code 2 with the file: a NaN would have become the uncertainty of every slice."""
    put(tmp_path, "calibration")
    path = tmp_path / "calibration.json"
    tree = json.loads(path.read_text())
    tree["landmarks"][0]["score_sd"] = float("nan")
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"calibration\.json: not a calibration: .* not finite"):
        read_calibration(path)


@pytest.mark.parametrize(
    ("read", "header", "row"),
    [
        (read_landmarks, "volume,landmark,index_sup_to_inf", "a,carina,3"),
        (lambda path: read_slice_classes([path]), "volume,index_sup_to_inf,class", "a,3,head"),
    ],
)
def test_N27_a_row_longer_than_its_header_moves_no_cell(tmp_path: Path, read, header, row) -> None:
    """One line with the file; pandas took the first cells as names and moved all others."""
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{row}\n,{row}\n")
    with pytest.raises(ValueError, match=r"table.csv: no table to read"):
        read(path)
