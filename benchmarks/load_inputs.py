"""Many small things on disk: volumes, foreign files, rows and PNGs, images and detections, cells.

All cost next to nothing to make, so that what is measured is what the commands do with them.
"""

from __future__ import annotations

import csv
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
from generated import body, write_nifti

ROOT = Path(__file__).resolve().parents[1]

SLICES, SIDE_PX = 12, 24
SPACING_MM = (5.0, 16.0, 16.0)
IN_A_FOLDER = 250
SERIES_PX = 256


def write_volumes(folder: Path, count: int) -> Path:
    """Write a tree of small volumes, one body under noise of their own."""
    one = body(SLICES, SIDE_PX, np.random.default_rng(0))
    for number in range(count):
        part = folder / f"part{number // IN_A_FOLDER:04d}"
        part.mkdir(parents=True, exist_ok=True)
        noise_hu = np.random.default_rng(number).integers(-20, 21, one.shape, np.int16)
        write_nifti(one + noise_hu, SPACING_MM, part / f"p{number:05d}.nii")
    return folder


def write_foreign(folder: Path, count: int, volumes: int = 4) -> Path:
    """Write files that are no volumes into one folder, and a few volumes beside them."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"note{number:06d}.txt").write_bytes(b"nothing of interest\n")
    for number in range(volumes):
        hu = body(SLICES, SIDE_PX, np.random.default_rng(number))
        write_nifti(hu, SPACING_MM, folder / f"p{number}.nii")
    return folder


def write_dicom(folder: Path, num_slices: int, side_px: int = SERIES_PX) -> Path:
    """Write one series, a file a slice, 0.5 mm apart."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    ten = body(10, side_px, np.random.default_rng(0))
    for number in range(num_slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        path = folder / f"{number:05d}.dcm"
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.update(
            {
                "SOPClassUID": CTImageStorage,
                "SOPInstanceUID": f"1.2.3.{number + 1}",
                "StudyInstanceUID": "1.2.3",
                "SeriesInstanceUID": "1.2.3.0",
                "PatientID": "one",
                "Modality": "CT",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                "InstanceNumber": number + 1,
                "ImagePositionPatient": [-200, -200, -0.5 * number],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [400 / side_px, 400 / side_px],
                "Rows": side_px,
                "Columns": side_px,
                "SamplesPerPixel": 1,
                "PhotometricInterpretation": "MONOCHROME2",
                "BitsAllocated": 16,
                "BitsStored": 16,
                "HighBit": 15,
                "PixelRepresentation": 1,
                "RescaleIntercept": 0,
                "RescaleSlope": 1,
                "PixelData": ten[number * 10 // num_slices].tobytes(),
            }
        )
        data.save_as(path, enforce_file_format=True)
    return folder


def write_regressor(path: Path) -> Path:
    """Write a regressor that scores a small volume in milliseconds, and says nothing."""
    import torch

    from ubr_pretrain.backbone import Provenance
    from ubr_pretrain.checkpoint import write_checkpoint
    from ubr_pretrain.ct import InputSpec
    from ubr_pretrain.regressor import Regressor, regressor_state
    from ubr_pretrain.trunk import Trunk

    torch.manual_seed(0)
    spec = InputSpec(size_px=32, std=(64.0, 64.0, 64.0))
    made = Provenance(init="random", pretraining="ubr")
    write_checkpoint(path, regressor_state(Regressor(Trunk(width=0.1), None), spec, made), "ubr")
    return path


def write_lesion_table(folder: Path, count: int) -> tuple[Path, Path]:
    """Write ``DL_info.csv`` with a row an image, and PNGs that are headers alone.

    Three rows a series, two series a patient; every tenth patient is in val, every tenth in test.
    """
    from converters.deeplesion_row import COLUMNS

    images = folder / "Images_png"
    images.mkdir(parents=True)
    png = _png_header(512)
    with (folder / "DL_info.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number in range(count):
            series, place = divmod(number, 3)
            patient, study = series // 2 + 1, series % 2 + 1
            key_slice = 10 + 20 * place
            name = f"{patient:06d}_{study:02d}_01"
            (images / name).mkdir(exist_ok=True)
            (images / name / f"{key_slice:03d}.png").write_bytes(png)
            left, top = 50 + number % 977 * 0.4, 60 + number % 661 * 0.5
            corners = f"{left}, {top}, {left + 40}, {top + 30}"
            points = (
                f"{left + 5}, {top + 15}, {left + 35}, {top + 15}, "
                f"{left + 20}, {top + 5}, {left + 20}, {top + 25}"
            )
            split = {8: 2, 9: 3}.get(patient % 10, 1)
            writer.writerow(
                [
                    *(f"{name}_{key_slice:03d}.png", patient, study, 1, key_slice, points),
                    *(corners, "30, 20", "0.5, 0.5, 0.5", 1 + number % 8, 0),
                    *(f"{key_slice}, {key_slice}", "0.8, 0.8, 2", "512, 512", "-175, 275"),
                    *("F", 60, split),
                ]
            )
    return folder / "DL_info.csv", images


def _png_header(side_px: int) -> bytes:
    """Return a PNG as far as its header and its end, which is what is looked at."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side_px, side_px, 16, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB`\x82"


def write_detections(folder: Path, count: int) -> tuple[Path, Path]:
    """Write a split of ``count`` images and the predictions for it, five on each."""
    import evaluation

    folder.mkdir(parents=True)
    return evaluation.write_split(folder, count, 5)


def write_comparison(folder: Path, num_cells: int) -> list[str]:
    """Write a finished comparison of two cells a seed; return the flags that go on with it.

    Nothing was trained: the cells hold what a training would have left.
    """
    sys.path.insert(0, str(ROOT))
    from lesion_det.compare_inits import DEFAULT_TITLE, compare
    from lesion_det.det_config import DetConfig
    from lesion_det.plan import build_question
    from tests.lesion_det.toy_comparison import write_toy_data, write_toy_ubr
    from tests.lesion_det.toy_grid import Trainer

    coco, images = write_toy_data(folder / "data")
    ubr = write_toy_ubr(folder / "ubr.safetensors")
    arms = ["random", "ubr"]
    seeds = [str(seed) for seed in range(num_cells // len(arms))]
    config = DetConfig.model_validate(
        {
            "coco": coco,
            "images": images,
            "ubr": ubr,
            "width": 0.05,
            "detector": {"fc_dim": 8},
            "iterations": 40,
            "device": "cpu",
        }
    )
    question = build_question(config, arms, [*map(int, seeds)], [1.0], title=DEFAULT_TITLE)
    assert compare(question, folder / "out", Trainer(), say=lambda _: None)[0] == 0
    return [
        *("--coco", str(coco), "--images", str(images), "--ubr", str(ubr), "--width", "0.05"),
        *("--detector.fc_dim", "8", "--iterations", "40", "--device", "cpu"),
        *("--inits", *arms, "--seeds", *seeds, "--out", str(folder / "out")),
    ]
