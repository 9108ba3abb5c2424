"""A toy scorer and a small archive: volumes of several formats, slices, a damaged file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.ubr_pretrain.dicom_writer import write_series
from tests.ubr_pretrain.stored_volumes import scan
from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.trunk import Trunk


def write_toy_checkpoint(path: Path) -> Path:
    """Write a regressor that scores a volume in milliseconds, and says nothing."""
    torch.manual_seed(0)
    spec = InputSpec(size_px=32, std=(64.0, 64.0, 64.0), fov_mm=512.0)
    made = Provenance(init="random", pretraining="ubr")
    write_checkpoint(path, regressor_state(Regressor(Trunk(width=0.1), None), spec, made), "ubr")
    return path


def write_archive(folder: Path, num_phantoms: int = 3) -> Path:
    """Write phantoms, one of them cut off, DICOM series of two patients, and a picture."""
    write_tiny_cohort(folder, num_phantoms, max_slices=25)
    cut = folder / "cut.nii"
    cut.write_bytes((folder / "p0.nii").read_bytes()[:5000])
    for number, patient in enumerate(("Doe^Jane", "Roe^Richard")):
        write_series(
            folder / f"patient{number}",
            scan((9, 40, 40), seed=number),
            (5.0, 8.0, 8.0),
            SeriesInstanceUID=f"1.2.{number}",
            PatientID=patient,
        )
    shades = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    Image.fromarray(shades).save(folder / "key.png")
    return folder


def recorded(out: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a journal by name; what was scored must not be scored again."""
    records: dict[str, dict[str, Any]] = {}
    for line in (out / "scores.jsonl").read_text().splitlines()[1:]:
        state = json.loads(line)
        assert "code" in records.get(state["name"], {"code": ""}), state["name"]
        records[state["name"]] = state["record"]
    return records
