"""Nothing that names a patient leaves with a result: planted names, sought in every byte."""

import base64
import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import parquet
from pydicom.dataset import FileDataset

from converters.export_backbone import main as export_backbone
from tests.ubr_pretrain.dicom_writer import save, slice_dataset, write_series
from tests.ubr_pretrain.tiny_cohort import tiny_config, write_nifti
from ubr_pretrain.crop_volumes import main as crop_volumes
from ubr_pretrain.ct import AIR_HU, Volume, without_text
from ubr_pretrain.gather_scores import main as gather_scores
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.train_ubr import main as train_ubr
from ubr_pretrain.train_ubr import train
from ubr_pretrain.volumes import read_volume

NAME, FOLDER = "ZQXSMITH", "ZQXFOLDER"
BORN, STUDIED = "17760704", "17891103"
ROOT_UID = "2.25.7171717171717171"
IN_HEADERS = (NAME, "ZQXPID", "ZQXACC", "ZQXHOSPITAL", "ZQXREFERRER", BORN, STUDIED, ROOT_UID,
              "1776-07-04", "1789-11-03")  # fmt: skip
IN_PATHS = (FOLDER, "ZQXFILE")


def named(number: int) -> dict[str, str]:
    """Elements that say who a patient is."""
    return {
        "PatientName": f"{NAME}^JANE{number}",
        "PatientID": f"ZQXPID{number}",
        "PatientBirthDate": BORN,
        "AccessionNumber": f"ZQXACC{number}",
        "StudyDate": STUDIED,
        "SeriesDate": STUDIED,
        "StudyDescription": f"{NAME} of ZQXHOSPITAL",
        "SeriesDescription": f"{NAME} ABDOMEN",
        "InstitutionName": "ZQXHOSPITAL",
        "ReferringPhysicianName": "ZQXREFERRER^R",
        "StudyInstanceUID": f"{ROOT_UID}.{number}",
        "SeriesInstanceUID": f"{ROOT_UID}.{number}.1",
        "FrameOfReferenceUID": f"{ROOT_UID}.{number}.2",
    }


def body(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    subject = sample_subject(rng)
    return render(subject, sample_scan(subject, rng, region="trunk", max_slices=24), 48).volume


def own_uid(ds: FileDataset) -> None:
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = (
        f"{ROOT_UID}.9.{ds.InstanceNumber}"
    )


def plant(top: Path) -> Path:
    """Write three sound series, five that are refused, and a key slice, all of named patients."""
    for number in range(1, 4):
        volume = body(number)
        files = [f"ZQXFILE{k:03d}.dcm" for k in range(volume.num_slices)]
        write_series(top / f"{FOLDER}_JANE{number}", volume.hu, volume.spacing_mm_zyx,
                     names=files, change=own_uid, **named(number))  # fmt: skip
    hu = np.full((6, 40, 40), 30, np.int16) + np.arange(6, dtype=np.int16)[:, None, None]
    for number, changes in enumerate(
        (
            {"RescaleIntercept": None},
            {"PixelSpacing": [0, 0]},
            {"PhotometricInterpretation": "MONOCHROME1"},
            {"ImagePositionPatient": None},
        ),
        start=4,
    ):
        folder = top / f"{FOLDER}_REFUSED{number}"
        write_series(folder, hu, change=own_uid, **(named(number) | changes))
    twice = write_series(top / f"{FOLDER}_TWICE", hu, change=own_uid, **named(8))
    for name, shift in (("ZQXFILE_AGAIN.dcm", 5), ("ZQXFILE_LAST.dcm", 9)):
        save(
            slice_dataset(hu[0] + shift, (-10.0, -20.0, 100.0), number=9, **named(8)), twice / name
        )
    cut = write_series(top / f"{FOLDER}_CUT", hu[:2], names=["ZQXFILE.dcm"] * 2, **named(9))
    whole = (cut / "ZQXFILE.dcm").read_bytes()
    (cut / "ZQXFILE.dcm").write_bytes(whole[:-500])
    return top


@dataclass(frozen=True)
class Chain:
    """Folders of results, and what was printed."""

    out: Path
    with_paths: Path
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Chain:
    top = tmp_path_factory.mktemp("privacy")
    data, out, shards = plant(top / "archive"), top / "out", top / "out" / "shards"
    said, complained = io.StringIO(), io.StringIO()
    ubr = out / "ubr" / "checkpoints" / "best.safetensors"
    commands = [
        (train_ubr, 1, "--preset", "demo", "--data", data, "--out", out / "ubr", "--iterations", 2,
         "--width", 0.1, "--input.size_px", 32, "--g", 2, "--m", 4, "--eval_every", 1,
         "--save_every", 1, "--store", out / "store", "--holdout_fraction", 0.4),
        (export_backbone, 0, ubr, out / "trunk.safetensors"),
        (export_backbone, 0, ubr, out / "hub", "--layout", "torchvision"),
        (score_volumes, 1, data, "--out", out / "scores", "--pages", "--views", 1,
         "--format", "csv", "json", "parquet"),
        *((score_volumes, None, data, "--out", shards, "--pictures", "false", "--views", 1,
           "--shard", f"{part}/2") for part in (1, 2)),
        (gather_scores, 0, shards, "--format", "csv", "json", "parquet"),
        (crop_volumes, 1, data, "--coordinate", -500, 500, "--out", out / "crops"),
        (score_volumes, 1, data, "--out", top / "with_paths", "--with-paths", "--views", 1,
         "--pictures", "false"),
    ]  # fmt: skip
    with redirect_stdout(said), redirect_stderr(complained):
        for main, expected, *argv in commands:
            code = main([str(word) for word in argv])
            assert code == expected or (expected is None and code in (0, 1)), (argv, code)
    return Chain(out, top / "with_paths", said.getvalue(), complained.getvalue())


def contents(file: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, and of what is packed inside it."""
    raw = file.read_bytes()
    yield str(file.name).encode()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if file.suffix == ".parquet":
        table = parquet.read_table(file)
        yield repr((table.to_pydict(), table.schema.metadata)).encode()
    for packed in re.findall(rb"base64,([A-Za-z0-9+/=]+)", raw):
        yield base64.b64decode(packed)
    if raw.startswith(b"\x89PNG"):
        place = 8
        while place < len(raw):
            (length,) = struct.unpack(">I", raw[place : place + 4])
            if raw[place + 4 : place + 8] in (b"zTXt", b"iTXt"):
                rest = raw[place + 8 : place + 8 + length].split(b"\0", 1)[1]
                yield zlib.decompress(rest[1:])
            place += length + 12


def found_in(content: bytes, tokens: tuple[str, ...]) -> list[str]:
    low = content.lower()
    return [
        token
        for token in tokens
        for spelled in (token.lower().encode(), token.lower().encode("utf-16-le"))
        if spelled in low
    ]


def leaks(folder: Path, tokens: tuple[str, ...]) -> dict[str, list[str]]:
    """Return which files of a folder hold which tokens."""
    told = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            hits = {hit for content in contents(file) for hit in found_in(content, tokens)}
            if hits:
                told[str(file.relative_to(folder))] = sorted(hits)
    return told


def test_S01_no_output_of_any_command_names_a_patient(chain: Chain) -> None:
    """Of a DICOM tree, no name, identifier, date, UID, folder or file name is in any byte of
    scores, pages, pictures, crops, slice store, checkpoints, logs or exports; subjects are hashes.
    A NIfTI, NRRD or MetaImage file gives its stem to its volume."""
    kinds = {file.suffix for file in chain.out.rglob("*") if file.is_file()}
    assert {".html", ".png", ".parquet", ".json", ".jsonl", ".csv", ".gz", ".npy", ".log", ".yaml",
            ".safetensors", ".md"} <= kinds  # fmt: skip
    assert list(chain.out.glob("ubr/tb/events*"))
    assert leaks(chain.out, IN_HEADERS) == {}
    # where a run lies and what it reads is in its own config.yaml, and nowhere else
    assert leaks(chain.out, IN_PATHS) == {}
    scores = (chain.out / "scores" / "volumes.csv").read_text()
    assert scores.count("patient-") >= 8
    for code in ("E-NOHU", "E-SPACING", "E-MONO1", "E-GEOM", "E-DUP", "E-TRUNC"):
        assert code in scores


def test_S01_what_is_printed_names_no_patient_but_the_file_to_be_mended(chain: Chain) -> None:
    """Standard output is free of all of it; standard error names the path of a refused file."""
    assert found_in(chain.stdout.encode(), IN_HEADERS + IN_PATHS) == []
    assert found_in(chain.stderr.encode(), IN_HEADERS) == []
    naming = [line for line in chain.stderr.splitlines() if found_in(line.encode(), IN_PATHS)]
    assert naming
    assert all(line.startswith(("E-", "refused: E-")) for line in naming)


def test_S01_a_file_that_is_a_volume_gives_it_its_name_and_no_folder(tmp_path: Path) -> None:
    """The stem of a NIfTI file is its volume's name, by which labels find it; the folders above
    are in no result."""
    (tmp_path / FOLDER).mkdir()
    write_nifti(body(0), tmp_path / FOLDER / "scan7.nii")
    out = tmp_path / "out"
    assert score_volumes([str(tmp_path / FOLDER), "--out", str(out), "--pictures", "false"]) == 0
    assert "scan7" in (out / "volumes.csv").read_text()
    assert leaks(out, IN_PATHS) == {}


def test_S01_paths_are_in_results_where_they_are_asked_for_by_name(chain: Chain) -> None:
    """--with-paths writes the path of every file into the results; of the headers still nothing."""
    told = leaks(chain.with_paths, IN_PATHS)
    assert told.keys() >= {"scores.json", "scores.jsonl"}
    assert leaks(chain.with_paths, IN_HEADERS) == {}


def test_S01_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    """The search of these tests sees through gzip, Parquet, data URIs and PNG texts."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" + NAME.encode()))
    hidden = base64.b64encode(f"{BORN}".encode()).decode()
    (tmp_path / "b.html").write_text(f'<img src="data:image/png;base64,{hidden}">')
    body_of = b"Comment\0\0" + zlib.compress(b"ZQXPID1")
    chunk = struct.pack(">I", len(body_of)) + b"zTXt" + body_of + b"\0\0\0\0"
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert leaks(tmp_path, IN_HEADERS) == {"a.gz": [NAME], "b.html": [BORN], "c.png": ["ZQXPID"]}


def test_S03_text_in_the_pixels_is_in_no_picture_of_a_training(tmp_path: Path) -> None:
    """The first batch of a training is drawn, but nothing of a series whose BurnedInAnnotation is
    YES, and what other pictures may be made of it is air; training itself uses it."""
    grey_share = {}
    for burned in ("NO", "YES"):
        for number in range(4):
            folder = tmp_path / burned / f"{number}"
            who = {"SeriesInstanceUID": f"2.25.{number}", "BurnedInAnnotation": burned}
            write_series(folder, body(number).hu, (8.0, 8.0, 8.0), **who)
        out = tmp_path / f"run_{burned}"
        assert train(tiny_config(tmp_path / burned, holdout=(), iterations=1), out) == 0
        picture = cv2.imread(str(out / "batch.png"), cv2.IMREAD_GRAYSCALE)
        grey_share[burned] = np.mean((picture > 20) & (picture < 235))
    assert grey_share["YES"] < grey_share["NO"] / 5

    shown = read_volume(tmp_path / "NO" / "0")
    hidden = read_volume(tmp_path / "YES" / "0")
    assert without_text(shown) is shown
    assert np.all(without_text(hidden).hu == AIR_HU)
    assert hidden.hu.max() > AIR_HU
