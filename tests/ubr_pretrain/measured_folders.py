"""DICOM folders with one defect each, on which four readers were compared, and what is right."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom import dcmread

from tests.ubr_pretrain.dicom_writer import Change, put, save, slice_dataset, write_series
from tests.ubr_pretrain.stored_volumes import scan

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
"""Files that come with pydicom: odd ones of real scanners among them."""

SLICES, SIDE, STEP_MM = 10, 32, 5.0
HU = scan((SLICES, SIDE, SIDE))
NAN = float("nan")
COUNT = SLICES


@dataclass(frozen=True)
class Folder:
    """One folder.

    Attributes:
        build: writes it; gets the folder and a SeriesInstanceUID of its own.
        scored: what `score_volumes` makes of each series: a number of slices, or a code.
        trained: likewise for `train_ubr`, where it is stricter.
        says: words of the refusal or the notes.
    """

    build: Callable[[Path, str], object]
    scored: tuple[int | str, ...]
    trained: tuple[int | str, ...] | None = None
    says: str = ""


def series(folder: Path, uid: str, change: dict[int, Change] | Change | None = None) -> Path:
    return write_series(folder, HU, (STEP_MM, 0.75, 0.75), change=change, SeriesInstanceUID=uid)


def of(change: dict[int, Change] | Change) -> Callable[[Path, str], object]:
    return lambda folder, uid: series(folder, uid, change)


def then(edit: Callable[[Path], object]) -> Callable[[Path, str], object]:
    """Write the series, then do something to its fourth file."""
    return lambda folder, uid: edit(series(folder, uid) / "003.dcm")


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def twin(change: int) -> Callable[[Path], object]:
    """Write a second file at the place of a slice, its picture changed or not."""

    def edit(path: Path) -> None:
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.99"
        ds.PixelData = (ds.pixel_array + np.int16(change)).tobytes()
        save(ds, path.with_name("twin.dcm"))

    return edit


def zero_hole(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1024:-512] = bytes(512)
    path.write_bytes(content)


def two_phases(folder: Path, uid: str) -> None:
    for phase in (1, 2):
        names = [f"{phase}-{k}.dcm" for k in range(SLICES)]
        write_series(
            folder, HU + phase, names=names, SeriesInstanceUID=uid, AcquisitionNumber=phase
        )


def two_series(folder: Path, uid: str) -> None:
    for number in (0, 1):
        names = [f"{number}-{k}.dcm" for k in range(5)]
        half = HU[5 * number : 5 * number + 5]
        write_series(folder, half, names=names, SeriesInstanceUID=f"{uid}.{number}")


def leaning(degrees: float, places_mm: np.ndarray) -> Callable[[Path, str], object]:
    """Write slices of a tilted gantry: the table moves along z, the slices lean."""
    lean = np.radians(degrees)
    direction = (1, 0, 0, 0, np.cos(lean), np.sin(lean))

    def build(folder: Path, uid: str) -> None:
        for k, place in enumerate(places_mm):
            ds = slice_dataset(
                HU[k], (0, 0, place), orientation=direction, number=k + 1, SeriesInstanceUID=uid
            )
            save(ds, folder / f"{k}.dcm")

    return build


def coronal(folder: Path, uid: str) -> None:
    for k in range(SLICES):
        ds = slice_dataset(
            HU[k], (0, STEP_MM * k, 0), orientation=(1, 0, 0, 0, 0, -1), SeriesInstanceUID=uid
        )
        save(ds, folder / f"{k}.dcm")


def loop(path: Path) -> None:
    (path.parent / "again").symlink_to(path.parent, target_is_directory=True)


def copied(name: str) -> Callable[[Path, str], object]:
    return lambda folder, uid: shutil.copytree(PYDICOM_FILES / "dicomdirtests" / name, folder)


RGB = put(SamplesPerPixel=3, PhotometricInterpretation="RGB", PixelData=bytes(6 * SIDE * SIDE))
SCOUT = put(
    ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]
)
UNEVEN_MM = -np.cumsum([0, 1.08, 7, 7, 7, 5, 5, 5, 5, 5])

FOLDERS = {
    "baseline": Folder(lambda f, u: series(f, u), (COUNT,)),
    "missing_mid": Folder(then(Path.unlink), (9,), ("E-GAP",)),
    "dup_position": Folder(then(twin(1)), ("E-DUP",), says="003.dcm"),
    "dup_same_picture": Folder(then(twin(0)), (COUNT,), says="1 repeated slices dropped"),
    "4d_same_series_two_phases": Folder(two_phases, (COUNT, COUNT)),
    "mixed_two_series": Folder(two_series, (5, 5)),
    "truncated_slice_70pct": Folder(then(cut(0.7)), ("E-TRUNC",), says="003.dcm"),
    "truncated_slice_tail": Folder(then(cut(0.99)), ("E-TRUNC",), says="003.dcm"),
    "zero_byte_slice": Folder(then(lambda p: p.write_bytes(b"")), ("E-EMPTY",), says="003.dcm"),
    "text_as_dcm": Folder(
        then(lambda p: p.write_bytes(b"not found")), ("E-NOTDICOM",), says="003.dcm"
    ),
    "bitrot_zero_hole": Folder(then(zero_hole), (COUNT,), says="damaged? 8 rows"),
    "one_slice_intercept_0": Folder(of({3: put(RescaleIntercept=0)}), ("E-RESCALE",), says="003"),
    "one_slice_slope_0.5": Folder(of({3: put(RescaleSlope=0.5)}), ("E-RESCALE",), says="003"),
    "slope_0": Folder(of(put(RescaleSlope=0)), ("E-RESCALE",), says="slope 0"),
    "no_rescale_tags": Folder(
        of(put(RescaleSlope=None, RescaleIntercept=None)), ("E-NOHU",), says="no rescale"
    ),
    "no_IPP": Folder(of(put(ImagePositionPatient=None)), ("E-GEOM",), says="ImagePosition"),
    "one_slice_no_IPP": Folder(of({3: put(ImagePositionPatient=None)}), ("E-GEOM",), says="003"),
    "no_IOP": Folder(of(put(ImageOrientationPatient=None)), ("E-GEOM",), says="ImageOrientation"),
    "pixelspacing_nan": Folder(of(put(PixelSpacing=[NAN, NAN])), ("E-SPACING",), says="nan"),
    "pixelspacing_0": Folder(of(put(PixelSpacing=[0.0, 0.0])), ("E-SPACING",), says="> 0"),
    "rgb_secondary_capture": Folder(of(RGB), ()),
    "monochrome1": Folder(
        of(put(PhotometricInterpretation="MONOCHROME1")), ("E-MONO1",), says="inverted"
    ),
    "one_slice_other_orientation": Folder(
        of({3: put(ImageOrientationPatient=[1, 0, 0, 0, 0.996, 0.0893])}), ("E-ORIENT",), says="003"
    ),
    "all_coronal": Folder(coronal, ("E-NONAXIAL",), says="coronal slices 5 mm apart"),
    "one_slice_256": Folder(
        of({3: put(Rows=16, PixelData=bytes(2 * 16 * SIDE))}), ("E-SIZE",), says="003"
    ),
    "rows_cols_65535": Folder(of({3: put(Rows=65535, Columns=65535)}), ("E-TRUNC",), says="003"),
    "all_rows_cols_65535": Folder(
        of(put(Rows=65535, Columns=65535)), ("E-TRUNC",), says="declares"
    ),
    "frames_100000": Folder(of(put(NumberOfFrames=100000)), ("E-TRUNC",), says="declares"),
    "one_slice_only": Folder(
        lambda f, u: write_series(f, HU[:1], SeriesInstanceUID=u), (1,), ("E-FEW",)
    ),
    "localizer_same_series": Folder(of({3: SCOUT}), (9,), ("E-GAP",), "localizer views dropped"),
    "localizer_at_the_end": Folder(of({9: SCOUT}), (9,), says="1 localizer views dropped"),
    "instance_numbers_reversed": Folder(
        of({k: put(InstanceNumber=SLICES - k) for k in range(SLICES)}), (COUNT,)
    ),
    "FFP_iop_-1_0_0": Folder(
        of(put(PatientPosition="FFP", ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])), (COUNT,),
        says="patient position FFP",
    ),
    "modality_MR": Folder(of(put(Modality="MR")), ()),
    "symlink_loop_dir": Folder(then(loop), (COUNT,)),
    "empty_dir": Folder(lambda f, u: f.mkdir(), ()),
    "schädel \u202e$(x)'\"": Folder(lambda f, u: series(f, u), (COUNT,)),
    "tilt_and_variable_spacing": Folder(
        leaning(12.0, UNEVEN_MM), (COUNT,), ("E-GAP",), "tilted by 12.0 degrees"
    ),
    "tilt_-18.5": Folder(
        leaning(-18.5, -2.5 * np.arange(SLICES)), (COUNT,), ("E-TILT",), "tilted by 18.5 degrees"
    ),
    "localizer_pair_of_pydicom": Folder(copied("98892001/CT2N"), ()),
    "gap_of_pydicom": Folder(copied("77654033/CT2"), (4,), ("E-GAP",)),
    "headers_without_pixels_of_pydicom": Folder(copied("TINY_ALPHA"), ()),
}  # fmt: skip
"""By the name of the case; those of pydicom are of real scanners."""
