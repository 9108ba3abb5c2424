"""Scans and the organs in them, read onto the pixels of a network.

Shapes:
    z: axial slices, superior -> inferior; S: pixels of a side. Organs count from 1, 0 is none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.volumes import read_volume

WHOLE = 1000
"""A pixel belongs to an organ that covers more than half of it; shares are whole thousandths."""

Organs = Mapping[str, Sequence[int]]
"""The numbers in label files that make up an organ."""

Labels = NDArray[np.uint8]


def read_organs(words: Sequence[str]) -> Organs:
    """Read ``NAME=NUMBER,NUMBER`` for every organ.

    Raises:
        ValueError: a word of another form.
    """
    organs = {}
    for word in words:
        name, equals, numbers = word.partition("=")
        if not (name and equals and all(part.isdigit() for part in numbers.split(","))):
            raise ValueError(f"--organs {word}: expected NAME=NUMBER,NUMBER")
        organs[name] = [int(part) for part in numbers.split(",")]
    return organs


@dataclass(frozen=True)
class Patient:
    """One scan: int16 HU [z, S, S] and the organ of every pixel [z, S, S]."""

    name: str
    hu: NDArray[np.int16]
    organs: Labels


def read_patient(ct: Path, labels: Path, organs: Organs, spec: InputSpec) -> Patient:
    """Read a scan and its labels onto the grid of ``spec``, whatever the stored directions.

    Raises:
        ValueError: there are no labels of that name, or they lie on another grid.
    """
    volume = read_volume(ct)
    file = labels / ct.name
    if not file.is_file():
        raise ValueError(f"{file}: no labels for {ct}")
    # as volumes are read: columns to the patient's left, rows to posterior, slices to inferior
    stored = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPI"))
    if stored.shape != volume.hu.shape:
        raise ValueError(f"{file}: labels {stored.shape}, scan {volume.hu.shape}")
    pixel_mm_yx = volume.spacing_mm_zyx[1:]
    covers = [WHOLE * np.isin(stored, numbers).astype(np.int16) for numbers in organs.values()]
    shares = np.stack([resample_slices(cover, pixel_mm_yx, spec) for cover in covers])
    owner = np.where(shares.max(0) > WHOLE / 2, 1 + shares.argmax(0), 0).astype(np.uint8)
    return Patient(ct.name.split(".")[0], resample_slices(volume.hu, pixel_mm_yx, spec), owner)
