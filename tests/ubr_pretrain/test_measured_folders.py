"""A hundred folders and files with one defect each, in one tree, given to the commands."""

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.measured_files import FILES
from tests.ubr_pretrain.measured_folders import FOLDERS, HU, STEP_MM
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.score_volumes import main
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes

CASES = FOLDERS | FILES

ROWS = {
    "V01": ("empty.nii.gz",),
    "V02": ("trunc70.nii",),
    "V03": ("trunc70.nii.gz",),
    "V04": ("bitflip.nii.gz", "bitflip.mha", "bitflip.nrrd"),
    "V05": ("trunc_last8.nii.gz",),
    "V06": ("text.nii",),
    "V07": ("plain_named_gz", "gz_without_extension"),
    "V08": ("truncated_slice_70pct", "truncated_slice_tail"),
    "V09": ("zero_byte_slice", "text_as_dcm"),
    "V10": ("bitrot_zero_hole",),
    "V11": ("missing_mid", "gap_of_pydicom"),
    "V13": ("dup_same_picture",),
    "V14": ("dup_position",),
    "V15": ("4d_same_series_two_phases",),
    "V16": ("mixed_two_series",),
    "V18": ("localizer_same_series", "localizer_at_the_end"),
    "V19": ("localizer_pair_of_pydicom",),
    "V20": ("one_slice_256",),
    "V21": ("one_slice_other_orientation",),
    "V22": ("all_coronal",),
    "V23": ("oblique30.nii",),
    "V24": ("tilt_-18.5", "tilt_and_variable_spacing"),
    "V25": ("tilt_and_variable_spacing",),
    "V26": ("instance_numbers_reversed", "negative_z.nii"),
    "V27": ("FFP_iop_-1_0_0",),
    "V28": ("axial_along_axis0.nii",),
    "V29": ("sform_flips_z_vs_qform.nii",),
    "V30": ("no_IOP", "no_sform_qform.nii", "nrrd_no_space.nrrd"),
    "V31": ("no_IPP", "one_slice_no_IPP"),
    "V32": (
        "pixelspacing_nan", "pixelspacing_0", "pixdim3_zero.nii", "pixdim3_nan.nii",
        "pixdim3_neg.nii", "pixdim_inf.nii", "nospacing.mhd",
    ),
    "V34": ("sform_nan.nii", "sform_shear.nii", "sform_all_zero.nii", "nrrd_nan_dir.nrrd"),
    "V35": ("dim_4d_2frames.nii", "5d.nii.gz"),
    "V36": ("one_slice_only",),
    "V37": ("rgb_secondary_capture", "datatype_rgb.nii"),
    "V38": ("dim_zero_slices.nii", "dim_negative.nii", "mha_neg_dims.mha"),
    "V39": ("one_slice_only",),
    "V41": ("one_slice_intercept_0", "one_slice_slope_0.5", "slope_0", "no_rescale_tags"),
    "V42": ("not_hu_offset1024_u16.nii.gz",),
    "V43": ("monochrome1",),
    "V47": ("nan_voxels.nii.gz",),
    "V49": ("f64.nii.gz", "int64.nii.gz"),
    "V50": ("bigendian.nii",),
    "V56": (
        "rows_cols_65535", "all_rows_cols_65535", "frames_100000", "dim_huge.nii", "huge.nhdr",
        "mha_overflow_dims.mha",
    ),
    "V57": ("gzip_bomb_tail.nii.gz", "gzip_bomb_4GB_dims.nii.gz"),
    "V61": ("fifo.nii", "directory.nii.gz"),
    "V62": ("symlink_loop_dir",),
    "V63": ("schädel \u202e$(x)'\"", "schädel \u202e$(x)'\".nii"),
    "V64": ("ref_passwd.mhd", "ref_up.mhd", "ref_passwd.nhdr"),
    "V68": ("modality_MR",),
}  # fmt: skip
"""The cases of the rows of faults.toml; the others are sound, or of no row."""

Records = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """What became of the tree: exit code, what was printed, records by the name of the case."""

    tree: Path
    exit_code: int
    complaints: str
    records: Records
    summary: str


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    for number, (name, folder) in enumerate(CASES.items()):
        folder.build(top / name, f"1.2.3.{number}")
    return top


@pytest.fixture(scope="module")
def outcome(tree: Path, tmp_path_factory) -> Outcome:
    """Of one run of score_volumes.py over the whole tree."""
    out = tmp_path_factory.mktemp("scores")
    checkpoint = write_toy_checkpoint(out / "toy.safetensors")
    flags = ["--checkpoint", str(checkpoint), "--views", "1", "--pictures", "false", "--with-paths"]
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as complaints:
        exit_code = main([str(tree), *flags, "--device", "cpu", "--out", str(out / "scores")])
    whole = json.loads((out / "scores" / "scores.json").read_text())
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for record in [*whole["volumes"], *whole["images"]]:
        records[Path(record["path"]).relative_to(tree).parts[0]].append(record)
    summary = printed.getvalue().rstrip().splitlines()[-1]
    return Outcome(tree, exit_code, complaints.getvalue(), records, summary)


def made_of(record: Mapping[str, Any]) -> int | str:
    """The number of slices that were scored, or the code of the refusal."""
    return record.get("code") or record.get("num_slices", 1)


def assert_as_told(name: str, outcome: Outcome, store: Mapping[str, tuple[int | str, ...]]) -> None:
    """A case is scored or refused by its code and in its words; training takes one spacing only."""
    records, told = outcome.records[name], CASES[name]
    assert tuple(sorted(map(made_of, records), key=str)) == told.scored
    here = f"{outcome.tree / name}/"
    lines = [line for line in outcome.complaints.splitlines() if here in f"{line} "]
    assert told.says in "\n".join([*lines, json.dumps(records, ensure_ascii=False)])
    assert store.get(name, ()) == (told.trained or told.scored)


@pytest.mark.parametrize("row", ROWS)
def test_a_defect_has_its_outcome_in_one_run_over_a_hundred(outcome: Outcome, store, row) -> None:
    """Each is scored or refused by its code and in its words, by `score_volumes.py` over a tree of
    a hundred defects (exit code 1) and by the slice store of a training."""
    assert outcome.exit_code == 1
    for name in ROWS[row]:
        assert_as_told(name, outcome, store)


def test_what_is_of_no_row_has_its_outcome_too(outcome: Outcome, store) -> None:
    for name in CASES.keys() - {name for names in ROWS.values() for name in names}:
        assert_as_told(name, outcome, store)


@pytest.fixture(scope="module")
def store(tree: Path, tmp_path_factory) -> dict[str, tuple[int | str, ...]]:
    """What training makes of each folder: slices of each series, or its code."""
    entries = find_volumes([tree])
    spec = InputSpec(size_px=32)
    stored, refused = build_slice_store(
        tmp_path_factory.mktemp("store"), entries, spec, min_slices=3
    )
    made: dict[str, int | str] = {volume.name: len(volume.z_mm) for volume in stored}
    made |= {refusal.name: refusal.code for refusal in refused}
    of_case: dict[str, tuple[int | str, ...]] = {}
    for entry in entries:
        case = entry.path.relative_to(tree).parts[0]
        of_case[case] = (*of_case.get(case, ()), made[entry.name])
    return of_case


def test_the_run_ends_with_one_and_counts_what_it_passed_over(outcome: Outcome) -> None:
    codes = Counter(type(made_of(r)) for records in outcome.records.values() for r in records)
    assert outcome.exit_code == 1
    assert f"{codes[int] - 1} volumes and 1 slices scored, {codes[str]} refused" in outcome.summary
    for passed_over in ("10 E-MODALITY", "10 E-RGB", "2 E-LOCALIZER", "50 E-NOPIXELS"):
        assert passed_over in outcome.summary


def by_simpleitk(folder: Path) -> sitk.Image:
    """Read a series as SimpleITK's documentation does."""
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    assert isinstance(image, sitk.Image)
    return image


@pytest.mark.parametrize(
    "name", ["truncated_slice_70pct", "truncated_slice_tail", "zero_byte_slice", "text_as_dcm"]
)
def test_M01_a_series_with_a_broken_slice_is_refused_where_simpleitk_leaves_it_out(
    outcome: Outcome, name: str
) -> None:
    """The series is refused by E-TRUNC, E-EMPTY or E-NOTDICOM with the slice; none is dropped."""
    image = by_simpleitk(outcome.tree / name)
    assert image.GetSize()[2] == len(HU) - 1
    assert image.GetSpacing()[2] == pytest.approx(STEP_MM * 9 / 8)
    (record,) = outcome.records[name]
    assert record["code"] in ("E-TRUNC", "E-EMPTY", "E-NOTDICOM")
    assert f"{outcome.tree / name / '003.dcm'}" in outcome.complaints


def test_M02_each_of_two_series_in_a_folder_has_its_scores(outcome: Outcome) -> None:
    """Both series of the folder are scored, one result each, where SimpleITK reads one of them."""
    assert by_simpleitk(outcome.tree / "mixed_two_series").GetSize()[2] == 5
    records = outcome.records["mixed_two_series"]
    assert [record["num_slices"] for record in records] == [5, 5]
    assert len({record["volume"] for record in records}) == 2


def test_M03_localizers_make_no_volume_and_turn_none(outcome: Outcome) -> None:
    """Two are passed over and counted (E-LOCALIZER); one in a series is left out, with a note."""
    pair = outcome.tree / "localizer_pair_of_pydicom"
    assert by_simpleitk(pair).GetSpacing()[2] > 300
    assert outcome.records["localizer_pair_of_pydicom"] == []
    assert "2 E-LOCALIZER" in outcome.summary
    assert by_simpleitk(outcome.tree / "localizer_same_series").GetSize()[2] == len(HU)
    (record,) = outcome.records["localizer_same_series"]
    assert "1 localizer views dropped" in record["notes"]
    assert record["slices"]["z_mm"] == [0, 5, 10, 20, 25, 30, 35, 40, 45]


def test_M04_tilted_and_uneven_slices_keep_their_true_places(outcome: Outcome) -> None:
    """Scored at slice-normal distances, the tilt in a note; training refuses (E-TILT, E-GAP)."""
    assert by_simpleitk(outcome.tree / "tilt_-18.5").GetSpacing()[2] == pytest.approx(2.5)
    (tilted,) = outcome.records["tilt_-18.5"]
    normal_mm = 2.5 * np.cos(np.radians(18.5))
    np.testing.assert_allclose(tilted["slices"]["z_mm"], normal_mm * np.arange(10), atol=1e-3)
    uneven = by_simpleitk(outcome.tree / "gap_of_pydicom")
    assert uneven.GetSpacing()[2] == pytest.approx(68.33, abs=0.01)
    (real,) = outcome.records["gap_of_pydicom"]
    np.testing.assert_allclose(real["slices"]["z_mm"], [0, 1.25, 2.5, 205], atol=1e-3)


def test_M05_slices_without_a_position_have_no_order(outcome: Outcome) -> None:
    """E-GEOM with the file, where SimpleITK takes the order of the file names for the body's."""
    for name in ("no_IPP", "one_slice_no_IPP", "no_IOP"):
        assert by_simpleitk(outcome.tree / name).GetSize()[2] == len(HU)
        assert [record["code"] for record in outcome.records[name]] == ["E-GEOM"]
    assert by_simpleitk(outcome.tree / "no_IPP").GetSpacing()[2] == 1.0
    assert f"{outcome.tree / 'one_slice_no_IPP' / '003.dcm'}" in outcome.complaints


@pytest.mark.parametrize(
    ("name", "code"),
    [("no_rescale_tags", "E-NOHU"), ("slope_0", "E-RESCALE"), ("monochrome1", "E-MONO1")],
)
def test_M07_numbers_that_are_no_hu_are_refused(outcome: Outcome, name: str, code: str) -> None:
    """E-NOHU, E-RESCALE or E-MONO1, where SimpleITK returns the numbers without a word."""
    assert by_simpleitk(outcome.tree / name).GetSize()[2] == len(HU)
    assert [record["code"] for record in outcome.records[name]] == [code]
