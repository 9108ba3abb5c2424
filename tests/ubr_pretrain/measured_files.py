"""NIfTI, NRRD and MetaImage files with one defect each, on which readers were compared."""

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.ubr_pretrain.measured_folders import Folder
from tests.ubr_pretrain.stored_volumes import (
    BODY_AXES_LPS,
    nii,
    patched,
    scan,
    stored_form,
    with_lines,
    write_itk,
    write_nibabel,
)

NAN, INF = float("nan"), float("inf")
HU = scan()
SLICES = len(HU)
Build = Callable[[Path, str], object]


def in_folder(write: Callable[[Path], object]) -> Build:
    def build(folder: Path, uid: str) -> None:
        folder.mkdir()
        write(folder)

    return build


def plain(**fields: float) -> Build:
    """Write a plain NIfTI with changed fields of its header."""
    return in_folder(lambda folder: nii(folder, **fields))


def packed(change: Callable[[bytes], bytes] = bytes, name: str = "scan.nii.gz") -> Build:
    """Write a compressed NIfTI and change its bytes."""

    def write(folder: Path) -> None:
        content = nii(folder).read_bytes()
        (folder / "scan.nii").unlink()
        (folder / name).write_bytes(change(gzip.compress(content, mtime=0)))

    return in_folder(write)


def edited(change: Callable[[bytes], bytes]) -> Build:
    def write(folder: Path) -> None:
        path = nii(folder)
        path.write_bytes(change(path.read_bytes()))

    return in_folder(write)


def flipped(content: bytes, place: int = -60) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 0x10
    return bytes(damaged)


def of_type(dtype: str, change: Callable[[Any], Any] = lambda hu: hu) -> Build:
    stored = change(HU.astype(np.float64)).astype(dtype)
    return in_folder(lambda folder: write_itk(folder / "scan.nii.gz", stored))


def with_nan(hu: np.ndarray) -> np.ndarray:
    hu[0, 0, :2] = NAN, INF
    return hu


def of_shape(*sides: int) -> Build:
    image = nib.Nifti1Image(np.zeros(sides, np.int16), np.diag([-1, -1, -5.0, 1]))
    return in_folder(lambda folder: nib.save(image, folder / "scan.nii.gz"))


def no_sform(folder: Path) -> None:
    content = bytearray(nii(folder, qform_code=0).read_bytes())
    content[280:328] = bytes(48)
    (folder / "scan.nii").write_bytes(content)


def sheared(folder: Path) -> None:
    axes = BODY_AXES_LPS.copy()
    axes[0] = [0.0, 0.64, -np.sqrt(1 - 0.64**2)]  # 40 degrees
    write_nibabel(folder / "scan.nii", HU, axes)


def oblique(folder: Path) -> None:
    lean = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    write_nibabel(folder / "scan.nii", HU, BODY_AXES_LPS @ turn.T)


def stored(order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Build:
    return in_folder(
        lambda folder: write_nibabel(
            folder / "scan.nii", *stored_form(HU, order, flips, (5.0, 0.75, 0.5))
        )
    )


def big_endian(folder: Path) -> None:
    image = nib.Nifti1Image(HU.transpose(2, 1, 0), np.diag([-0.5, -0.75, -5.0, 1]))
    nib.save(nib.Nifti1Image(image.dataobj, image.affine, image.header.as_byteswapped(">")),
             folder / "scan.nii")  # fmt: skip


def bomb(folder: Path) -> None:
    """A volume of 4.3 GB in a file of 4 MB."""
    head = patched(nii(folder), dim1=1290, dim2=1290, dim3=1290).read_bytes()[:352]
    (folder / "scan.nii").unlink()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    (folder / "scan.nii.gz").write_bytes(start + 4100 * zeros)


def tail(folder: Path) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [packer.compress(nii(folder).read_bytes()), packer.compress(bytes(1 << 24))]
    (folder / "scan.nii").unlink()
    (folder / "scan.nii.gz").write_bytes(b"".join(parts) + packer.flush())


def text_header(suffix: str, **lines: str | None) -> Build:
    """Write an NRRD or MetaImage and change lines of its header."""
    return in_folder(lambda folder: with_lines(write_itk(folder / f"scan.{suffix}", HU), **lines))


def cut(
    suffix: str, compress: bool = False, change: Callable[[bytes], bytes] = lambda c: c[:-100]
) -> Build:
    def write(folder: Path) -> None:
        path = write_itk(folder / f"scan.{suffix}", scan((8, 16, 16)), compress=compress)
        path.write_bytes(change(path.read_bytes()))

    return in_folder(write)


def no_raw(folder: Path) -> None:
    write_itk(folder / "scan.mhd", HU)
    (folder / "scan.raw").unlink()


def refuse(build: Build, code: str, says: str = "") -> Folder:
    return Folder(build, (code,), says=says)


def read(build: Build, says: str = "", trained: str | None = None) -> Folder:
    return Folder(build, (SLICES,), None if trained is None else (trained,), says)


FILES = {
    "good.nii.gz": read(packed()),
    "empty.nii.gz": refuse(packed(lambda _: b""), "E-EMPTY"),
    "trunc70.nii": refuse(edited(lambda c: c[: len(c) * 7 // 10]), "E-TRUNC", "declares 240 bytes"),
    "trunc70.nii.gz": refuse(packed(lambda c: c[: len(c) * 7 // 10]), "E-TRUNC"),
    "trunc_last8.nii.gz": refuse(packed(lambda c: c[:-8]), "E-TRUNC", "end mark"),
    "bitflip.nii.gz": refuse(packed(flipped), "E-CRC", "damaged"),
    "text.nii": refuse(edited(lambda _: b"not found"), "E-FORMAT", "looks like text"),
    "plain_named_gz": read(in_folder(lambda f: nii(f).rename(f / "scan.nii.gz"))),
    "pixdim3_zero.nii": refuse(plain(pixdim3=0), "E-SPACING", "spacing"),
    "pixdim3_nan.nii": refuse(plain(pixdim3=NAN), "E-SPACING", "nan"),
    "pixdim3_neg.nii": refuse(plain(pixdim3=-5), "E-SPACING", "-5"),
    "pixdim_inf.nii": refuse(plain(pixdim3=INF), "E-SPACING", "inf"),
    "scl_slope_nan.nii": read(plain(scl_slope=NAN), "scl_slope"),
    "scl_slope0.nii": read(plain(scl_slope=0)),
    "scl_inter_-24.nii": read(plain(scl_slope=1, scl_inter=-24)),
    "dim_huge.nii": refuse(plain(dim1=1000, dim2=1000, dim3=1000), "E-TRUNC", "2000000000 bytes"),
    "dim_negative.nii": refuse(plain(dim3=-6), "E-HEADER", "-6"),
    "dim_zero_slices.nii": refuse(plain(dim3=0), "E-HEADER", "x 0"),
    "dim_2d.nii": refuse(plain(dim0=2), "E-FORMAT", "goes on after the 40 bytes"),
    "dim_4d_2frames.nii": refuse(of_shape(4, 5, 3, 2), "E-4D", "4 x 5 x 3 x 2"),
    "datatype_rgb.nii": refuse(plain(datatype=128, bitpix=24), "E-RGB"),
    "datatype_unknown.nii": refuse(plain(datatype=9999), "E-HEADER", "9999"),
    "vox_offset_beyond.nii": refuse(plain(vox_offset=1e6), "E-TRUNC", "before the voxels"),
    "vox_offset_nan.nii": refuse(plain(vox_offset=NAN), "E-HEADER", "vox_offset nan"),
    "no_sform_qform.nii": refuse(plain(qform_code=0, sform_code=0), "E-GEOM", "head and feet"),
    "sform_nan.nii": refuse(plain(srow_x=NAN, qform_code=0), "E-GEOM"),
    "sform_shear.nii": refuse(in_folder(sheared), "E-TILT", "39.8 degrees"),
    "sform_all_zero.nii": refuse(in_folder(no_sform), "E-GEOM", "no directions"),
    "sform_flips_z_vs_qform.nii": refuse(plain(srow_z2=5.0), "E-GEOM", "disagree"),
    "f64.nii.gz": read(of_type("f8")),
    "nan_voxels.nii.gz": refuse(of_type("f4", with_nan), "E-NAN", "2 voxels"),
    "not_hu_offset1024_u16.nii.gz": read(
        of_type("u2", lambda hu: hu + 1024), "offset by 1024", trained="E-NOHU"
    ),
    "int64.nii.gz": read(of_type("i8")),
    "5d.nii.gz": refuse(of_shape(4, 5, 3, 1, 2), "E-4D", "4 x 5 x 3 x 1 x 2"),
    "axial_along_axis0.nii": read(stored((2, 1, 0), (False, False, False)), "reoriented"),
    "negative_z.nii": read(stored((0, 1, 2), (True, False, True))),
    "oblique30.nii": refuse(in_folder(oblique), "E-OBLIQUE", "30.0 degrees"),
    "bigendian.nii": read(in_folder(big_endian)),
    "gzip_bomb_tail.nii.gz": refuse(in_folder(tail), "E-FORMAT", "goes on after the 240 bytes"),
    "gzip_bomb_4GB_dims.nii.gz": refuse(in_folder(bomb), "E-SIZE-LIMIT", "limit 4000000000"),
    "ref_passwd.mhd": refuse(text_header("mhd", ElementDataFile="/etc/passwd"), "E-UNSAFE"),
    "ref_up.mhd": refuse(text_header("mhd", ElementDataFile="../up.raw"), "E-UNSAFE"),
    "missing_raw.mhd": refuse(in_folder(no_raw), "E-MISSING", "scan.raw"),
    "short_raw.mhd": refuse(text_header("mhd", DimSize="4 5 12"), "E-TRUNC", "declares 480 bytes"),
    "nospacing.mhd": refuse(text_header("mhd", ElementSpacing=None), "E-SPACING", "no spacing"),
    "ref_passwd.nhdr": refuse(text_header("nhdr", data_file="/etc/passwd"), "E-UNSAFE"),
    "huge.nhdr": refuse(text_header("nhdr", sizes="1000 1000 1000"), "E-TRUNC", "2000000000 bytes"),
    "trunc.nrrd": refuse(cut("nrrd"), "E-TRUNC"),
    "nrrd_nan_dir.nrrd": refuse(
        text_header("nrrd", space_directions="(0.5,0,0) (0,nan,0) (0,0,-5)"), "E-GEOM"
    ),
    "nrrd_no_space.nrrd": refuse(
        text_header("nrrd", space=None, space_directions=None), "E-GEOM", "no orientation"
    ),
    "trunc.mha": refuse(cut("mha"), "E-TRUNC"),
    "mha_dims_lie.mha": refuse(text_header("mha", DimSize="4 5 12"), "E-TRUNC"),
    "mha_overflow_dims.mha": refuse(text_header("mha", DimSize="4 5 4294967297"), "E-HEADER"),
    "mha_neg_dims.mha": refuse(text_header("mha", DimSize="4 5 -6"), "E-HEADER"),
    "bitflip.mha": refuse(cut("mha", compress=True, change=flipped), "E-CRC"),
    "bitflip.nrrd": refuse(cut("nrrd", compress=True, change=flipped), "E-CRC"),
    "trunc_packed.mha": refuse(cut("mha", compress=True), "E-TRUNC"),
    "fifo.nii": refuse(in_folder(lambda folder: os.mkfifo(folder / "scan.nii")), "E-NOTFILE"),
    "directory.nii.gz": Folder(in_folder(lambda folder: (folder / "scan.nii.gz").mkdir()), ()),
    "schädel \u202e$(x)'\".nii": read(plain()),
    "gz_without_extension": read(packed(name="noext")),
}
"""By the name of the case."""
