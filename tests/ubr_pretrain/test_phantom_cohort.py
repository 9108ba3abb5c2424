"""``make_phantoms.py``: the cohort on disk, read back by other libraries, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest

from ubr_pretrain import phantom_cohort
from ubr_pretrain.phantom import ABNORMALITIES, Phantom, sample_phantom
from ubr_pretrain.phantom_cohort import RECORD, main
from ubr_pretrain.phantom_pictures import draw_contact_sheet, draw_views
from ubr_pretrain.phantom_tissues import Tissue
from ubr_pretrain.phantom_volumes import STORED_DIRECTIONS, write_cohort, write_nifti
from ubr_pretrain.volumes import read_volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Phantom]]:
    out = tmp_path_factory.mktemp("cohort") / "ct"
    written = dict(write_cohort(out, 9, 7, 48, num_abnormal=5, max_slices=40))
    return out, written


def test_every_volume_reads_back_upright_from_head_to_feet(cohort: tuple[Path, dict[str, Phantom]]):
    out, phantoms = cohort
    assert len(phantoms) == 9
    for name, phantom in phantoms.items():
        volume = read_volume(out / f"{name}.nii.gz")
        np.testing.assert_array_equal(volume.hu, phantom.volume.hu)
        np.testing.assert_allclose(volume.spacing_mm_zyx, phantom.volume.spacing_mm_zyx, rtol=1e-6)


def test_files_are_stored_in_different_directions(cohort: tuple[Path, dict[str, Phantom]]):
    out, phantoms = cohort
    codes = {nibabel.aff2axcodes(nibabel.load(out / f"{name}.nii.gz").affine) for name in phantoms}
    assert len(codes) == len(STORED_DIRECTIONS)


@pytest.mark.parametrize("signs", [*STORED_DIRECTIONS, (1, -1, 1)])
def test_nifti_means_the_same_in_every_direction(tmp_path: Path, signs: tuple[int, int, int]):
    volume = sample_phantom(np.random.default_rng(0), 32, "chest", step_mm=15).volume
    write_nifti(volume, tmp_path / "v.nii.gz", signs)
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / "v.nii.gz"))
    right_anterior_up = np.asarray(canonical.dataobj)
    np.testing.assert_array_equal(right_anterior_up.transpose(2, 1, 0)[::-1, ::-1, ::-1], volume.hu)
    assert [file.name for file in tmp_path.iterdir()] == ["v.nii.gz"]


def test_nifti_to_a_place_that_cannot_hold_it_names_the_file(tmp_path: Path):
    volume = sample_phantom(np.random.default_rng(0), 32, "chest", step_mm=30).volume
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_nifti(volume, tmp_path / "file" / "v.nii.gz")
    with pytest.raises(OSError, match=r"v\.xyz"):
        write_nifti(volume, tmp_path / "v.xyz")


def test_tables_hold_the_truth(cohort: tuple[Path, dict[str, Phantom]]):
    out, phantoms = cohort
    manifest = pd.read_csv(out / "manifest.csv", keep_default_na=False)
    classes = pd.read_csv(out / "slice_classes.csv")
    marks = pd.read_csv(out / "landmarks.csv")
    places = pd.read_csv(out / "slice_coordinates.csv")
    assert manifest.volume.tolist() == list(phantoms)
    assert manifest.subject.is_unique
    assert manifest.abnormality.tolist() == [""] * 4 + list(ABNORMALITIES)
    for name, phantom in phantoms.items():
        mine = classes[classes.volume == name]
        assert mine.index_sup_to_inf.tolist() == list(range(phantom.volume.num_slices))
        assert mine["class"].tolist() == list(phantom.classes)
        coordinates = places[places.volume == name].coordinate_mm
        np.testing.assert_allclose(coordinates, phantom.coordinate_mm, atol=0.006)
        found = marks[marks.volume == name]
        assert found.landmark.tolist() == [mark.name for mark in phantom.landmarks]
        assert found.index_sup_to_inf.tolist() == [mark.index for mark in phantom.landmarks]


@pytest.mark.real
@pytest.mark.parametrize("table", ["landmarks.csv", "slice_classes.csv"])
def test_tables_have_the_columns_of_the_real_ones(
    cohort: tuple[Path, dict[str, Phantom]], real_ct: Path, table: str
):
    real = (real_ct / table).read_text().splitlines()[0]
    assert (cohort[0] / table).read_text().splitlines()[0] == real


def test_a_subject_does_not_depend_on_how_many_are_written(tmp_path: Path):
    few = dict(write_cohort(tmp_path / "few", 1, 7, 48, max_slices=40))
    many = dict(write_cohort(tmp_path / "many", 2, 7, 48, max_slices=40))
    np.testing.assert_array_equal(few["phantom_7_0000"].volume.hu, many["phantom_7_0000"].volume.hu)


def test_labels_lie_on_the_voxels_of_their_volume_and_change_nothing_else(tmp_path: Path):
    alone, out, labels = tmp_path / "alone", tmp_path / "ct", tmp_path / "labels"
    phantoms = dict(write_cohort(out, len(STORED_DIRECTIONS), 7, 48, max_slices=20, labels=labels))
    dict(write_cohort(alone, len(STORED_DIRECTIONS), 7, 48, max_slices=20))
    for file in alone.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    for name, phantom in phantoms.items():
        volume, tissues = (nibabel.load(f / f"{name}.nii.gz") for f in (out, labels))
        np.testing.assert_array_equal(tissues.affine, volume.affine)
        assert tissues.get_data_dtype() == np.uint8
        right_anterior_up = np.asarray(nibabel.as_closest_canonical(tissues).dataobj)
        stored = right_anterior_up.transpose(2, 1, 0)[::-1, ::-1, ::-1]
        np.testing.assert_array_equal(stored, phantom.tissues)
    numbers = json.loads((labels / "tissues.json").read_text())
    assert (numbers["liver"], numbers["spleen"]) == (Tissue.LIVER, Tissue.SPLEEN)
    assert set(numbers.values()) == set(Tissue)


def test_command_writes_volumes_lesions_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "phantoms"
    words = [str(out), "--subjects", "2", "--matrix", "64", "--max-slices", "20", "--pictures",
             "--labels", "--deeplesion", "--lesion-patients", "3"]  # fmt: skip
    assert main(words) == 0
    assert len(list((out / "labels").glob("*.nii.gz"))) == 2
    assert len(list((out / "ct").glob("*.nii.gz"))) == 2
    assert (out / "deeplesion" / "DL_info.csv").is_file()
    for name in ("slices.png", "views.png"):
        assert cv2.imread(str(out / "pictures" / name)).std() > 10
    lesions = out / "deeplesion"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"next: train_ubr.py --data {out / 'ct'} --out runs/ubr",
        f"next: deeplesion_to_coco.py {lesions / 'DL_info.csv'} --images {lesions / 'Images_png'} "
        "--out coco",
    ]

    assert main(words) == 2
    complaint = capsys.readouterr().err.splitlines()
    assert complaint == [
        f"make_phantoms.py: error: {out} is not empty: give another folder, or --overwrite"
    ]
    before = (out / "ct" / "phantom_0_0000.nii.gz").read_bytes()
    assert main([*words[:-3], "--overwrite"]) == 0
    assert (out / "ct" / "phantom_0_0000.nii.gz").read_bytes()[10:] == before[10:]
    assert not (out / "deeplesion").exists()


def test_overwrite_spares_a_folder_that_is_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    precious = tmp_path / "ct" / "patient.nii.gz"
    precious.parent.mkdir()
    precious.write_text("irreplaceable")
    assert main([str(tmp_path), "--overwrite", "--subjects", "1"]) == 2
    assert f"no {RECORD}" in capsys.readouterr().err
    assert precious.read_text() == "irreplaceable"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--subjects", "0"], "subjects 0, abnormal 0: at least one"),
        (["--abnormal", "25"], "subjects 24, abnormal 25: at least one"),
        (["--region", "thigh"], "region 'thigh' is not one of head_neck"),
        (["--matrix", "8"], "size_px 8 must be at least 16"),
        (["--step-mm", "-1"], "step -1.0 mm > 0"),
        (["--max-slices", "1"], "max_slices 1 must be at least 2"),
        (["--deeplesion", "--lesion-patients", "2"], "2 patients: each of the three splits"),
    ],
)
def test_an_impossible_request_ends_with_code_2_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
):
    out = tmp_path / "out"
    assert main([str(out), *words]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_an_unknown_flag_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["out", "--colour"])
    assert capsys.readouterr().err == "make_phantoms.py: error: unrecognized arguments: --colour\n"


def test_pictures_show_every_volume_true_to_scale(tmp_path: Path):
    volumes = [
        sample_phantom(np.random.default_rng(n), 32, "abdomen", step_mm=15).volume for n in (0, 1)
    ]
    draw_contact_sheet(volumes, tmp_path / "sheet.png", slices_per_volume=4, columns=4)
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_UNCHANGED)
    assert sheet.shape == (2 * 152, 4 * 152)
    assert (sheet.reshape(2, 152, 4, 152).std((1, 3)) > 5).all()
    draw_views(volumes, tmp_path / "views.png")
    views = cv2.imread(str(tmp_path / "views.png"), cv2.IMREAD_UNCHANGED)
    assert views.shape[0] == 2 * 424
    with pytest.raises(ValueError, match=r"x\.png"):
        draw_contact_sheet([], tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x\.png"):
        draw_views([], tmp_path / "x.png")


def test_progress_names_the_number_of_all_where_it_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(phantom_cohort, "PLAIN_LINE_EVERY_S", -1.0)
    assert list(phantom_cohort._watched("ab", 2, "volumes")) == ["a", "b"]
    assert list(phantom_cohort._watched("a", None, "series")) == ["a"]
    assert capsys.readouterr().err == "volumes: 1 of 2\nvolumes: 2 of 2\nseries: 1\n"
