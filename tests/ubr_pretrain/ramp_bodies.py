"""Bodies of plain grey slices, brighter towards the feet, and a regressor that sees it."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tests.ubr_pretrain.tiny_cohort import write_nifti
from ubr_pretrain.backbone import Provenance
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.landmarks import LANDMARK_COORDINATES
from ubr_pretrain.network_input import network_input
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.trunk import Trunk

SPEC = InputSpec(size_px=32, mean=(0.0, 0.0, 0.0), std=(64.0, 64.0, 64.0), fov_mm=512.0)
"""Without a mean every input is positive, so that ReLUs without bias make a linear function."""

STEP_MM = 5.0
MM_PER_UNIT = 4.0
ZONES = (("lung_apex", "chest"), ("liver_dome", "abdomen"), ("iliac_crest", "pelvis"))


def grey_hu(coordinate: np.ndarray) -> np.ndarray:
    """HU of the slice at a body coordinate: -150 at 110, 150 at -40."""
    return np.rint(-150 + 2.0 * (110 - coordinate)).astype(np.int16)


def write_ramp_regressor(path: Path) -> Path:
    """Write a checkpoint whose scores grow with the brightness of a slice."""
    torch.manual_seed(0)
    regressor = Regressor(Trunk(width=0.1), None).eval()
    greys = torch.linspace(-150, 150, 40)[:, None, None].expand(-1, 32, 32)
    with torch.inference_mode():
        scores = regressor(network_input(greys, SPEC))
        regressor.fc7.weight.mul_(10 / (scores[-1] - scores[0]))
        assert (torch.diff(regressor(network_input(greys, SPEC))) > 0).all()
    made = Provenance(init="random", pretraining="ubr")
    write_checkpoint(path, regressor_state(regressor, SPEC, made), "ubr")
    return path


def write_ramp_bodies(folder: Path, tops: tuple[float, ...], num_slices: int = 100) -> Path:
    """Write volumes that begin at the body coordinates ``tops``, with their tables."""
    folder.mkdir(parents=True)
    marks, classes = [], []
    for k, top in enumerate(tops):
        coordinate = top - np.arange(num_slices) * STEP_MM / MM_PER_UNIT
        hu = np.broadcast_to(grey_hu(coordinate)[:, None, None], (num_slices, 16, 16))
        volume = Volume(np.ascontiguousarray(hu), (STEP_MM, 32.0, 32.0))
        write_nifti(volume, folder / f"ramp{k}.nii")
        for landmark, place in LANDMARK_COORDINATES.items():
            index = round((top - place) * MM_PER_UNIT / STEP_MM)
            if 0 <= index < num_slices:
                marks.append((f"ramp{k}", landmark, index))
        for index, c in enumerate(coordinate):
            inside = [name for start, name in ZONES if c <= LANDMARK_COORDINATES[start]]
            classes.append((f"ramp{k}", index, inside[-1] if inside else "head_neck"))
    pd.DataFrame(marks, columns=["volume", "landmark", "index_sup_to_inf"]).to_csv(
        folder / "landmarks.csv", index=False
    )
    pd.DataFrame(classes, columns=["volume", "index_sup_to_inf", "class"]).to_csv(
        folder / "slice_classes.csv", index=False
    )
    return folder
