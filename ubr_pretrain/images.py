"""Single axial slices as pictures: 8-bit PNG and JPEG, DeepLesion's 16-bit PNG, one DICOM file.

An 8-bit picture has lost its HU and its pixel size: the grey values are taken as one window of HU,
and the picture as ``ASSUMED_WIDTH_MM`` wide unless a ``DL_info*.csv`` or the caller knows better.

Shapes:
    y: rows, anterior -> posterior; x: columns, the patient's right -> left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ubr_pretrain.ct import AIR_HU, Volume, VolumeRefused, Window
from ubr_pretrain.doubts import with_doubts
from ubr_pretrain.hounsfield import BONE_HU, looks_like_hu, raw_to_hu
from ubr_pretrain.png_slices import (
    COLOUR_NAMES,
    HU_OFFSET,
    MAX_FILE_BYTES,
    check_size,
    decode_png,
    read_stored_slice,
    stored_to_hu,
    table_spacing_mm,
)
from ubr_pretrain.reading_rules import MAX_SIDE_PX, check_spacing
from ubr_pretrain.stored_file import PNG_MAGIC, StoredFile, describe
from ubr_pretrain.volumes import read_volume

SOFT_TISSUE = Window()
"""What 0..255 is taken for: -175..275 HU."""

ASSUMED_WIDTH_MM = 410.0
"""512 pixels of 0.8 mm; the median of 10,752 lesions of DeepLesion is 418 mm, the mean 412 mm."""

UNKNOWN_THICKNESS_MM = 5.0
"""Stands in where one DICOM slice states none; nothing about one slice depends on it."""

BLACK, BLACK_HU = 2, -1000
"""Grey values up to this one (JPEG does not keep a 0 exactly) are taken for air."""

WHITE, MUSCLE_HU = 0.98, 200
"""A picture may end in muscle, which is white in some windows, but not in white above it."""

FULL_SCALE = (HU_OFFSET - 2**14, HU_OFFSET + 2**14)
"""Padding may lie below and metal above; a slice with both is a window spread over 16 bits."""

JPEG_MAGIC = b"\xff\xd8\xff"
COLOUR_STEP, COLOUR_SHARE = 16, 0.002
"""A picture is coloured where the channels of more than 0.2 % of its pixels differ by more than 16
grey levels; JPEG's rounding of equal channels stays far below."""

KEY_SLICE_NAME = re.compile(r"(\d+_\d+_\d+)_\d+", re.ASCII)


@dataclass(frozen=True, eq=False)
class CtImage:
    """One axial slice.

    Attributes:
        hu: [y, x].
        pixel_mm_yx: row height, column width.
        source: the file it came from.
        notes: what was assumed.
    """

    hu: NDArray[np.int16]
    pixel_mm_yx: tuple[float, float]
    source: str = ""
    notes: tuple[str, ...] = ()


def read_image(path: Path, window: Window = SOFT_TISSUE, pixel_mm: float | None = None) -> CtImage:
    """Read one slice, by content and not by name.

    Args:
        path: PNG, JPEG or one DICOM file.
        window: what HU the grey values 0..255 of an 8-bit picture stand for (`grey_to_hu`).
        pixel_mm: side of a pixel, where neither the file nor a ``DL_info*.csv`` beside it states
            one; None: such that the picture is ``ASSUMED_WIDTH_MM`` wide.

    Raises:
        VolumeRefused: E-MISSING, E-EMPTY, E-FORMAT, E-RGB, E-TRUNC, E-CRC, E-NOHU, E-SIZE-LIMIT,
            E-MEMORY, E-DIM (a DICOM file of several slices) and the codes of the DICOM reader.
    """
    try:
        return _read(path, window, pixel_mm)
    except OSError as error:  # a share that went away, a table that may not be read
        raise VolumeRefused("E-MISSING", path, f"cannot be read: {error}") from error
    except MemoryError as error:
        raise VolumeRefused("E-MEMORY", path, "does not fit into memory") from error


def _read(path: Path, window: Window, pixel_mm: float | None) -> CtImage:
    with StoredFile(path) as file:
        kind = picture_kind(file)
        content = file.stream.read() if kind == "8-bit" and file.size <= MAX_FILE_BYTES else b""
        if kind == "8-bit" and not content:
            raise VolumeRefused("E-SIZE-LIMIT", path, f"{file.size} bytes, limit {MAX_FILE_BYTES}")
        is_dicom, head = file.format == "dicom", file.head
    if is_dicom:
        return _one_slice(read_volume(path, spacing_mm_zyx=(UNKNOWN_THICKNESS_MM, 1.0, 1.0)), path)
    if not kind:
        raise VolumeRefused("E-FORMAT", path, f"is no PNG, JPEG or DICOM: {describe(head)}")
    if kind == "8-bit":
        grey, notes = _grey(content, path)
        return _windowed(grey, window, path, _pixel_mm(path, grey.shape[1], pixel_mm), notes)
    stored = read_stored_slice(path)
    low, high = int(stored.min()), int(stored.max())
    if high <= AIR_HU + HU_OFFSET:
        raise VolumeRefused(
            "E-NOHU", path, f"holds no value above {AIR_HU + HU_OFFSET}: not HU + {HU_OFFSET}"
        )
    spread = low < FULL_SCALE[0] and high > FULL_SCALE[1]
    notes = (f"not HU? stored values lie in {low}..{high}: a window?",) if spread else ()
    return _of_hu(stored_to_hu(stored), path, _pixel_mm(path, stored.shape[1], pixel_mm), notes)


def array_to_image(
    array: NDArray[Any], window: Window = SOFT_TISSUE, pixel_mm: float | None = None
) -> CtImage:
    """Take an array [y, x] as one slice: uint8 as windowed grey values, anything else as HU.

    Raises:
        VolumeRefused: E-DIM, E-FORMAT, E-NAN, E-NOHU, E-SPACING.
    """
    source = Path("array")
    array = np.asarray(array)
    if array.ndim != 2 or 0 in array.shape:
        raise VolumeRefused("E-DIM", source, f"has shape {array.shape}, not [y, x]")
    if array.dtype.kind not in "iuf":
        raise VolumeRefused("E-FORMAT", source, f"holds {array.dtype}, not real numbers")
    pixel = _given_or_assumed(source, array.shape[1], pixel_mm)
    if array.dtype == np.uint8:
        return _windowed(array, window, source, pixel)
    hu, notes = raw_to_hu(array[np.newaxis], 1.0, 0.0, source)
    return _of_hu(hu[0], source, pixel, notes)


def grey_to_hu(grey: NDArray[np.uint8], window: Window) -> NDArray[np.int16]:
    """Undo a window: 255 becomes its upper end, what was cut off below it becomes air.

    In the soft-tissue window nearly all that is black is air or lung, -968 HU on average in
    DeepLesion. At the lower end of the window it would brighten every edge that is averaged when
    the slice shrinks, and all scores would be those of a slice further down.
    """
    scale = (window.upper_hu - window.lower_hu) / 255.0
    hu = np.rint(window.lower_hu + scale * grey.astype(np.float32)).astype(np.int16)
    hu[grey <= BLACK] = min(BLACK_HU, round(window.lower_hu))
    return hu


def picture_kind(file: StoredFile) -> str:
    """Return "16-bit" for a grey PNG of 16 bits, "8-bit" for other PNG and JPEG, "" for neither."""
    if file.gzipped:
        return ""
    if file.format == "png":  # the first chunk is the header; depth and colour stand at 24, 25
        return "16-bit" if file.head[24:26] == b"\x10\x00" else "8-bit"
    return "8-bit" if file.head.startswith(JPEG_MAGIC) else ""


def _windowed(
    grey: NDArray[np.uint8],
    window: Window,
    path: Path,
    pixel: tuple[tuple[float, float], tuple[str, ...]],
    notes: tuple[str, ...] = (),
) -> CtImage:
    """Take grey values for HU, with a note where they do not look like that window."""
    pixel_mm_yx, said = pixel
    hu = grey_to_hu(grey, window)
    _refuse_blank(hu, path)
    # A cut leaves bone at the end of the window; below that of muscle it says nothing.
    white_hu = min(BONE_HU, max(MUSCLE_HU, WHITE * window.upper_hu))
    doubt = looks_like_hu(_as_volume(hu, pixel_mm_yx), white_hu)
    taken = f"grey values 0..255 taken as {window.lower_hu:g}..{window.upper_hu:g} HU"
    doubts = (f"not that window? {doubt}",) if doubt else ()
    return CtImage(hu, pixel_mm_yx, str(path), (taken, *notes, *said, *doubts))


def _of_hu(
    hu: NDArray[np.int16],
    path: Path,
    pixel: tuple[tuple[float, float], tuple[str, ...]],
    notes: tuple[str, ...] = (),
) -> CtImage:
    """Take HU as a slice, with the doubts that a volume of it would raise."""
    pixel_mm_yx, said = pixel
    return _one_slice(with_doubts(_as_volume(hu, pixel_mm_yx, (*notes, *said))), path)


def _as_volume(
    hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float], notes: tuple[str, ...] = ()
) -> Volume:
    return Volume(hu[np.newaxis], (UNKNOWN_THICKNESS_MM, *pixel_mm_yx), notes=notes)


def _refuse_blank(hu: NDArray[np.int16], path: Path) -> None:
    """Refuse a slice of one value; a volume of one is only doubted: it may be padding."""
    if hu.min() == hu.max():
        raise VolumeRefused("E-NOHU", path, f"every pixel is {hu.flat[0]} HU: no picture")


def _grey(content: bytes, path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode an 8-bit picture to grey values; one whose channels differ is refused.

    What shines through is taken for black, which is air: under it lies no colour of the slice.
    """
    if content.startswith(PNG_MAGIC):  # Pillow reads damaged ones, and no checksum of pixels
        decode_png(content, path, _check_depth)
    notes: tuple[str, ...] = ()
    try:
        # warnings: odd metadata, or a size that is refused here
        with (
            catch_warnings(action="ignore"),
            Image.open(BytesIO(content), formats=("PNG", "JPEG")) as opened,
        ):
            check_size(opened.width, opened.height, path)
            if opened.mode not in ("L", "LA", "P", "RGB", "RGBA"):
                raise VolumeRefused(
                    "E-FORMAT", path, f"holds pixels of mode {opened.mode}, not 8-bit grey or RGB"
                )
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                clear = picture.convert("RGBA")
                if np.asarray(clear.getchannel("A")).min() < 255:
                    notes = ("transparent pixels taken as black",)
                picture = Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear)
            channels = np.asarray(picture.convert("RGB" if picture.mode != "L" else "L"))
    except Image.DecompressionBombError as error:
        raise VolumeRefused("E-SIZE-LIMIT", path, f"{error}, limit {MAX_SIDE_PX} a side") from error
    except (VolumeRefused, MemoryError):
        raise
    except Exception as error:  # whatever Pillow stumbles over in a chunk or an EXIF tag
        cause = str(error) or type(error).__name__
        raise VolumeRefused("E-CRC", path, f"the picture is damaged: {cause}") from error
    if channels.ndim == 2:
        return channels, notes
    spread = np.ptp(channels.astype(np.int16), axis=2)
    share = float(np.mean(spread > COLOUR_STEP))
    if share > COLOUR_SHARE:
        raise VolumeRefused(
            "E-RGB",
            path,
            f"is coloured: the channels of {100 * share:.1f} % of its pixels differ",
            "give the grey CT slice itself",
        )
    return np.median(channels, axis=2).astype(np.uint8), notes


def _check_depth(width: int, height: int, depth: int, colour: int, path: Path) -> None:
    """Refuse a PNG that is too large, or whose 16 bits a channel Pillow would cut to 8."""
    check_size(width, height, path)
    if depth == 16:
        name = COLOUR_NAMES.get(colour, f"colour type {colour}")
        raise VolumeRefused("E-FORMAT", path, f"is {name} of 16 bits: neither 8 bits nor grey")


def _pixel_mm(
    path: Path, width_px: int, pixel_mm: float | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Return the pixel size that a table beside the file, the caller, or nobody knows."""
    otherwise = _given_or_assumed(path, width_px, pixel_mm)
    spacing_mm = listed_spacing_mm(path)
    return otherwise if spacing_mm is None else (spacing_mm[1:], ())


def _given_or_assumed(
    path: Path, width_px: int, pixel_mm: float | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    if pixel_mm is not None:
        check_spacing(path, (pixel_mm,))
        return (pixel_mm, pixel_mm), ()
    assumed = ASSUMED_WIDTH_MM / width_px
    note = f"pixel size unknown: taken as {assumed:.3g} mm, a picture {ASSUMED_WIDTH_MM:g} mm wide"
    return (assumed, assumed), (note,)


def listed_spacing_mm(path: Path) -> tuple[float, float, float] | None:
    """Return the spacing (z, y, x) that a ``DL_info*.csv`` states for a slice, None for none.

    Slices lie in DeepLesion's own layout (``Images_png/000001_01_01/109.png``, the table beside
    Images_png), or flat (``000001_01_01_109.png``) beside the table or one folder below it.
    """
    folder = path.resolve().parent
    places = [folder]
    if named := KEY_SLICE_NAME.match(path.stem):
        places += [folder / named[1], folder / "flat" / named[1]]
    for place in places:
        try:
            return table_spacing_mm(place)
        except VolumeRefused:
            continue
    return None


def _one_slice(volume: Volume, path: Path) -> CtImage:
    if volume.num_slices != 1:
        raise VolumeRefused("E-DIM", path, f"holds {volume.num_slices} slices: score it as volume")
    _refuse_blank(volume.hu, path)
    _, dy, dx = volume.spacing_mm_zyx
    return CtImage(volume.hu[0], (dy, dx), str(path), volume.notes)
