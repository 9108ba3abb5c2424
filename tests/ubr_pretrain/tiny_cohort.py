"""A cohort that trains in a second: five small phantoms as NIfTI."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ubr_pretrain.ct import InputSpec, Volume
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.ubr_config import Optimiser, UbrConfig


def write_nifti(volume: Volume, path: Path) -> None:
    """Write superior -> inferior slices as a plain LPS image (slices stored inferior first)."""
    image = sitk.GetImageFromArray(volume.hu[::-1])
    image.SetSpacing([float(s) for s in volume.spacing_mm_zyx[::-1]])
    sitk.WriteImage(image, str(path))


def write_tiny_cohort(folder: Path, count: int = 5, max_slices: int = 30) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        rng = np.random.default_rng(100 + i)
        subject = sample_subject(rng)
        scan = sample_scan(subject, rng, region="whole", max_slices=max_slices)
        write_nifti(render(subject, scan, size_px=48).volume, folder / f"p{i}.nii")
    return folder


def tiny_config(*data: Path, **changes: object) -> UbrConfig:
    settings: dict[str, object] = {
        "data": data,
        "holdout": ("p0",),
        "holdout_fraction": 0.0,
        "width": 0.1,
        "head_std": None,
        "input": InputSpec(size_px=32, std=(64.0, 64.0, 64.0), fov_mm=512.0),
        "g": 4,
        "m": 4,
        "iterations": 6,
        "eval_every": 2,
        "save_every": 3,
        "optimiser": Optimiser(name="adamw", lr=1e-3),
        "device": "cpu",
    }
    return UbrConfig(**(settings | changes))
