"""NRRD and MetaImage headers, and the data files that they name."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.stored_volumes import (
    SPACING,
    nii,
    refusal,
    refused,
    scan,
    with_lines,
    write_itk,
)
from ubr_pretrain.volumes import read_volume


@pytest.mark.parametrize(
    ("lines", "code", "word"),
    [
        ({"space_directions": None}, "E-GEOM", "no orientation"),
        ({"space_directions": "(0.5,0,0) (0,nan,0) (0,0,-5)"}, "E-GEOM", "no directions"),
        ({"space_directions": "(0.5,0,0) (0,0,0) (0,0,-5)"}, "E-GEOM", "no directions"),
        ({"space_directions": "(0.5,0,0) (0,0.75,0)"}, "E-GEOM", "three vectors"),
        ({"space_directions": "(0.5,0,0) (0,x,0) (0,0,-5)"}, "E-GEOM", "three vectors"),
        ({"space_directions": "(0.5,0,0) (0,0.75,0) (0,0,-75)"}, "E-SPACING", "75"),
        ({"space": "scanner-xyz"}, "E-GEOM", "scanner-xyz"),
        ({"space": None}, "E-GEOM", "space ''"),
        ({"sizes": "4 5 0"}, "E-HEADER", "4 x 5 x 0"),
        ({"sizes": "4 5 -6"}, "E-HEADER", "-6"),
        ({"sizes": "4 5 99999999999"}, "E-HEADER", "99999999999"),
        ({"sizes": "4 5 x"}, "E-HEADER", "not whole numbers"),
        ({"sizes": "4 5"}, "E-HEADER", "but 2 sizes"),
        ({"sizes": "100000 100000 100000"}, "E-TRUNC", "declares 2000000000000000"),
        ({"type": "block"}, "E-HEADER", "block"),
        ({"endian": None}, "E-HEADER", "endian"),
        ({"encoding": "bzip2"}, "E-CODEC", "bzip2"),
        ({"encoding": "ascii"}, "E-CODEC", "ascii"),
    ],
)
def test_V32_V34_V38_V56_impossible_nrrd_headers(tmp_path: Path, lines, code, word) -> None:
    """E-GEOM, E-SPACING, E-HEADER, E-TRUNC or E-CODEC with the value."""
    refused(with_lines(write_itk(tmp_path / "n.nrrd", scan()), **lines), code, word)


@pytest.mark.parametrize(
    ("lines", "code", "word"),
    [
        ({"ElementSpacing": None}, "E-SPACING", "states no spacing"),
        ({"ElementSpacing": "0.5 0.75 0"}, "E-SPACING", "> 0"),
        ({"ElementSpacing": "0.5 nan 5"}, "E-SPACING", "nan"),
        ({"ElementSpacing": "0.5 5"}, "E-SPACING", "0.5 5"),
        ({"TransformMatrix": None}, "E-GEOM", "no orientation"),
        ({"TransformMatrix": "1 0 0 0 1 0 0 0 0"}, "E-GEOM", "no directions"),
        ({"TransformMatrix": "1 0 0 1"}, "E-GEOM", "3 x 3"),
        ({"DimSize": "4 5 12"}, "E-TRUNC", "declares 480 bytes of voxels, holds 240"),
        ({"DimSize": "4 5 -6"}, "E-HEADER", "-6"),
        ({"DimSize": "4 5 4294967297"}, "E-HEADER", "4294967297"),
        ({"DimSize": "4 5 0.5"}, "E-HEADER", "0.5"),
        ({"DimSize": "4 5 nan"}, "E-HEADER", "nan"),
        ({"DimSize": "4 5"}, "E-HEADER", "NDims 3"),
        ({"ElementType": "MET_LONG"}, "E-HEADER", "MET_LONG"),
        ({"ElementType": "MET_STRING"}, "E-HEADER", "MET_STRING"),
        ({"BinaryData": "False"}, "E-CODEC", "text"),
    ],
)
def test_V32_V34_V38_V56_impossible_metaimage_headers(tmp_path: Path, lines, code, word) -> None:
    """E-SPACING, E-GEOM, E-TRUNC, E-HEADER or E-CODEC with the value."""
    refused(with_lines(write_itk(tmp_path / "m.mha", scan()), **lines), code, word)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("HeaderSize = -1", "E-CODEC"),
        ("ElementNumberOfChannels = 3", "E-RGB"),
        ("DistanceUnits = um", "E-SPACING"),
        ("ElementToIntensityFunctionSlope = 2", "E-RESCALE"),
        ("NDims = 3", "E-HEADER"),
    ],
)
def test_metaimage_fields_that_would_change_the_voxels_are_refused(tmp_path, line, code) -> None:
    path = write_itk(tmp_path / "m.mha", scan())
    path.write_bytes(path.read_bytes().replace(b"NDims = 3\n", f"NDims = 3\n{line}\n".encode()))
    refused(path, code, line.split()[0])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('space units: "cm" "cm" "cm"', "E-SPACING"),
        ("line skip: 3", "E-CODEC"),
        ("byte skip: -1", "E-CODEC"),
        ("type: short", "E-HEADER"),
    ],
)
def test_nrrd_fields_that_would_change_the_voxels_are_refused(tmp_path, line, code) -> None:
    path = write_itk(tmp_path / "n.nrrd", scan())
    path.write_bytes(
        path.read_bytes().replace(b"dimension: 3\n", f"dimension: 3\n{line}\n".encode())
    )
    assert refusal(path).code == code


def test_V30_V32_what_the_caller_knows_completes_a_bare_nrrd(tmp_path: Path) -> None:
    """E-GEOM, then E-SPACING, until Python states orientation and spacing, as the hints tell."""
    path = with_lines(write_itk(tmp_path / "n.nrrd", scan()), space_directions=None, space=None)
    refused(path, "E-GEOM", "in Python: read_volume(..., orientation=")
    refused(path, "E-SPACING", "in Python: read_volume(..., spacing_mm_zyx=", orientation="LPI")
    volume = read_volume(path, orientation="LPI", spacing_mm_zyx=SPACING)
    np.testing.assert_array_equal(volume.hu, scan())
    assert volume.spacing_mm_zyx == SPACING
    # the spacing is the body's, whatever the order in the file
    turned = read_volume(path, orientation="SPL", spacing_mm_zyx=(1.0, 2.0, 2.9))
    assert turned.hu.shape == (4, 5, 6)
    assert turned.spacing_mm_zyx == (1.0, 2.0, 2.9)


def test_what_a_file_states_is_not_overruled_by_the_caller(tmp_path: Path) -> None:
    volume = read_volume(nii(tmp_path), spacing_mm_zyx=(9.0, 1.0, 1.0), orientation="RAS")
    assert volume.spacing_mm_zyx == SPACING
    np.testing.assert_array_equal(volume.hu, scan())


@pytest.mark.parametrize(
    "space", ["right-anterior-superior", "RAS", "left-anterior-superior", "LPS"]
)
def test_nrrd_spaces_mean_what_simpleitk_means(tmp_path: Path, space: str) -> None:
    path = with_lines(write_itk(tmp_path / "n.nrrd", scan()), space=space)
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPI")
    np.testing.assert_array_equal(read_volume(path).hu, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_detached_data_file_is_read(tmp_path: Path, suffix: str, compress: bool) -> None:
    path = write_itk(tmp_path / f"scan.{suffix}", scan(), compress=compress)
    np.testing.assert_array_equal(read_volume(path).hu, scan())


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../other.raw", "sub/x.raw", "LIST", "%03d.raw", ".."]
)
def test_V64_a_data_file_elsewhere_is_not_read(tmp_path: Path, suffix: str, name: str) -> None:
    """E-UNSAFE with the name: voxels come from the folder of their header, from one file."""
    key = {"nhdr": "data_file", "mhd": "ElementDataFile"}[suffix]
    path = with_lines(write_itk(tmp_path / f"scan.{suffix}", scan()), **{key: name})
    refused(path, "E-UNSAFE", repr(name), "same folder")


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_V64_a_link_does_not_lead_out_of_the_folder(tmp_path: Path, suffix: str) -> None:
    """E-UNSAFE: a link that leads out of the folder is not followed."""
    (tmp_path / "inside").mkdir()
    path = write_itk(tmp_path / "inside" / f"scan.{suffix}", scan())
    data = next(file for file in path.parent.iterdir() if file != path)
    data.rename(tmp_path / "secret.raw")
    data.symlink_to(tmp_path / "secret.raw")
    refused(path, "E-UNSAFE")


@pytest.mark.parametrize("suffix", ["nhdr", "mhd"])
def test_V66_a_missing_data_file_is_named(tmp_path: Path, suffix: str) -> None:
    """E-MISSING with the file of the voxels."""
    path = write_itk(tmp_path / f"scan.{suffix}", scan())
    data = next(file for file in path.parent.iterdir() if file != path)
    data.unlink()
    fault = refusal(path)
    assert (fault.code, Path(fault.path).name) == ("E-MISSING", data.name)
