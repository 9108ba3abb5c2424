"""Building and verifying the slice store, against SimpleITK reading the same files and no more.

    python benchmarks/store.py

On one core both sides run in one process that is held to one core. On all cores SimpleITK, whose
readers use one and hold Python's lock, runs in one process a core; the store is built by threads of
one process. What is read is in the page cache, what is written goes to the disk of the temporary
folder and is synced. A store is built anew every time.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from table import Row, in_turn, to_markdown

from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.phantom_volumes import write_nifti
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes

NUM_SCANS = 4
NUM_FILES = 300
"""Slices of the DICOM series, 512 x 512."""

REPEATS = 5
AIM = 1.15
REAL = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SPECS = {"the whole image": InputSpec(), "512 mm": InputSpec(fov_mm=512.0)}


def rows() -> list[Row]:
    """Return seconds of the store against those of reading."""
    cores = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(cores, multiprocessing.get_context("spawn"), _one_thread) as readers,
    ):
        folder = Path(name)
        scans = write_scans(folder / "nifti", NUM_SCANS)
        series = [write_series(folder / f"dicom{n}", n) for n in range(cores)]
        found = []
        for spec_name, spec in SPECS.items():
            what = f"{NUM_SCANS} .nii.gz of 120 slices, 256 px, to 128 px of {spec_name}"
            found.append(_on_one_core(what, scans, spec, folder / "stores"))
        what = f"{NUM_FILES} DICOM files of 512 px, to 128 px of {{}}"
        for spec_name, spec in SPECS.items():
            found.append(_on_one_core(what.format(spec_name), series[:1], spec, folder / "stores"))
        if (REAL / "ct").is_dir():
            real = sorted(REAL.glob("ct/*.nii.gz"))
            found.append(
                _on_one_core(f"{len(real)} real .nii.gz", real, InputSpec(), folder / "stores")
            )
        spec = InputSpec()
        found += [
            _on_all_cores(f"{NUM_SCANS} .nii.gz", scans, spec, folder / "stores", readers),
            _on_all_cores(f"{cores} DICOM series", series, spec, folder / "stores", readers),
            _verified(scans, spec, folder / "stores"),
        ]
        return found


def build(scans: Sequence[Path], spec: InputSpec, stores: Path) -> int:
    """Build a store that is not there yet in a folder of stores; return its slices."""
    store = stores / str(len([*stores.iterdir()]) if stores.is_dir() else 0)
    volumes, refused = build_slice_store(store, find_volumes(scans), spec, min_slices=1)
    assert not refused
    return sum(len(volume.z_mm) for volume in volumes)


def read(path: Path) -> int:
    """Read a file, or the one DICOM series of a folder, with SimpleITK; return its voxels."""
    if path.is_file():
        return sitk.ReadImage(str(path)).GetNumberOfPixels()
    reader = sitk.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(path))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path), uid))
    return reader.Execute().GetNumberOfPixels()


def _on_one_core(what: str, scans: Sequence[Path], spec: InputSpec, stores: Path) -> Row:
    with _one_core():
        ours, theirs = in_turn(
            lambda: build(scans, spec, stores), lambda: [read(s) for s in scans], repeats=REPEATS
        )
    slices = build(scans, spec, stores)
    note = f"{slices} slices, {1000 * ours / slices:.2f} ms and {2 * spec.size_px**2} bytes a slice"
    return Row(f"store of {what}", ours, theirs, "s", "SimpleITK reads them, one core", AIM, note)


def _on_all_cores(
    what: str, scans: Sequence[Path], spec: InputSpec, stores: Path, readers: ProcessPoolExecutor
) -> Row:
    ours, theirs = in_turn(
        lambda: build(scans, spec, stores), lambda: [*readers.map(read, scans)], repeats=REPEATS
    )
    against = f"SimpleITK reads them, {os.cpu_count()} processes"
    return Row(f"store of {what}, all cores", ours, theirs, "s", against, AIM)


def _verified(scans: Sequence[Path], spec: InputSpec, stores: Path) -> Row:
    """A start of a training whose store is there: every SHA-256 compared."""
    entries = find_volumes(scans)
    store = stores / "verified"
    files = [v.file for v in build_slice_store(store, entries, spec, min_slices=1)[0]]
    with _one_core():
        ours, theirs = in_turn(
            lambda: build_slice_store(store, entries, spec, min_slices=1),
            lambda: [file.read_bytes() for file in files],
            repeats=REPEATS,
        )
    size_gb = sum(file.stat().st_size for file in files) / 1e9
    note = f"{ours / size_gb:.2f} s a GB on one core"
    return Row("store verified by SHA-256", ours, theirs, "s", "reading its bytes", None, note)


def write_scans(folder: Path, count: int) -> list[Path]:
    """Write scans of one phantom that differ by its place and by noise."""
    folder.mkdir()
    body, rng = _body(256, 120), np.random.default_rng(0)
    paths = [folder / f"scan{n}.nii.gz" for n in range(count)]
    for n, path in enumerate(paths):
        hu = np.roll(body.hu, 3 * n, axis=2) + rng.integers(-9, 10, body.hu.shape)
        write_nifti(Volume(hu.clip(-1024).astype(np.int16), body.spacing_mm_zyx), path)
    return paths


def write_series(folder: Path, number: int) -> Path:
    """Write a DICOM series of ``NUM_FILES`` slices of 512 x 512."""
    folder.mkdir()
    body, rng = _body(256, 60), np.random.default_rng(number)
    uid = f"1.2.826.0.1.3680043.8.498.{number + 1}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    for k in range(NUM_FILES):
        hu = np.kron(body.hu[k * len(body.hu) // NUM_FILES], np.ones((2, 2), np.int16))
        meta.MediaStorageSOPInstanceUID = f"{uid}.{k + 1}"
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID = str(number), f"{uid}.0.1", uid
        ds.InstanceNumber, ds.SliceThickness, ds.PixelSpacing = k + 1, 1.0, [0.8, 0.8]
        ds.ImagePositionPatient = [0.0, 0.0, float(-k)]
        ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
        ds.Rows, ds.Columns = hu.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        noisy = hu + rng.integers(-9, 10, hu.shape) + 1024
        ds.PixelData = noisy.clip(0, 4095).astype("<u2").tobytes()
        ds.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)
    return folder


def _body(size_px: int, max_slices: int) -> Volume:
    rng = np.random.default_rng(0)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="trunk", max_slices=max_slices)
    return render(subject, scan, size_px=size_px).volume


def _one_thread() -> None:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


@contextmanager
def _one_core() -> Iterator[None]:
    """Hold all threads of this process, those that it keeps for later too, to one core."""
    before = os.sched_getaffinity(0)
    _hold_to({min(before)})
    try:
        yield
    finally:
        _hold_to(before)


def _hold_to(cores: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


if __name__ == "__main__":
    print(to_markdown(rows()))
