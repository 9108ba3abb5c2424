"""What the examples read: an exported trunk, and scans with their organs or body parts.

Shapes:
    z: axial slices, superior -> inferior; S: pixels of a side. Organs count from 1, 0 is none.
    n: slices of several scans.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.network_input import network_input, resample_slices
from ubr_pretrain.slice_classes import BODY_PARTS, read_slice_classes
from ubr_pretrain.trunk import torchvision_names
from ubr_pretrain.volumes import read_volume

WHOLE = 1000
"""A pixel belongs to an organ that covers more than half of it; shares are whole thousandths."""

Organs = Mapping[str, Sequence[int]]
"""The numbers in label files that make up an organ."""

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class ExportedTrunk:
    """A VGG-16 of ``export_backbone.py``.

    Attributes:
        tensors: as torchvision calls them in ``features``: ``0.weight`` to ``28.bias``.
        width: multiple of torchvision's channels.
        input_spec: how it was trained to see HU.
    """

    tensors: Mapping[str, Tensor]
    width: float
    input_spec: InputSpec


def read_trunk(file: Path) -> ExportedTrunk:
    """Read an exported trunk of any width and layout.

    Raises:
        ValueError: another network, a damaged file, or one that states no input.
    """
    found = read_external_trunk(file, width=None).backbone
    names = torchvision_names("vgg16", prefix="")
    tensors = {names[name]: tensor for name, tensor in found.trunk.state_dict().items()}
    return ExportedTrunk(tensors, found.trunk.width, found.input_spec)


def read_slices(folder: Path, spec: InputSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the slices [n, 3, S, S] that ``slice_classes.csv`` names, and their classes [n].

    The slices are as the trunk was trained to see them; classes count in ``BODY_PARTS``.

    Raises:
        ValueError: a wrong table, or a scan that lacks a slice of it.
        OSError: a scan cannot be read.
    """
    inputs, classes = [], []
    for name, rows in read_slice_classes([folder / "slice_classes.csv"]).groupby("volume"):
        volume = read_volume(folder / f"{name}.nii.gz")
        chosen = rows["index_sup_to_inf"].to_numpy()
        if chosen.max() >= len(volume.hu):
            number = f"none is number {chosen.max()} from 0"
            raise ValueError(f"{volume.source}: {len(volume.hu)} slices, {number}")
        hu = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)[chosen]
        inputs.append(network_input(torch.from_numpy(hu).float(), spec))
        classes += [BODY_PARTS.index(part) for part in rows["class"]]
    return torch.cat(inputs).to(device), torch.tensor(classes, device=device)


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
