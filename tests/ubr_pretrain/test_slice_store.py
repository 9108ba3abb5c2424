"""The store decodes a volume once, and again when its source changed."""

import os

import numpy as np
import SimpleITK as sitk

from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.slice_store import build_slice_store, data_sha256, split_by_subject
from ubr_pretrain.volumes import find_volumes, read_volume

SPEC = InputSpec(size_px=32, fov_mm=512.0)


def build(folder, data, min_slices=4, spec=SPEC):
    return build_slice_store(folder, find_volumes([data]), spec, min_slices=min_slices)


def test_stored_slices_are_the_volumes_resampled(tmp_path):
    data = write_tiny_cohort(tmp_path / "data", 2)
    stored, refused = build(tmp_path / "store", data)
    assert refused == []
    for volume in stored:
        source = read_volume(volume.path)
        expected = resample_slices(source.hu, source.spacing_mm_zyx[1:], SPEC)
        assert np.array_equal(volume.slices, expected)
        assert np.allclose(volume.z_mm, source.z_mm)
        assert volume.runs == source.runs


def test_an_interrupted_build_reads_only_what_is_missing(tmp_path, monkeypatch):
    data = write_tiny_cohort(tmp_path / "data", 3)
    build(tmp_path / "store", data)
    (removed,) = (tmp_path / "store").glob("p1-*.json")  # written last: without it, not done
    removed.unlink()
    read = []
    plain = resample_slices

    def counted(hu, spacing, spec):
        read.append(len(hu))
        return plain(hu, spacing, spec)

    monkeypatch.setattr("ubr_pretrain.slice_store.resample_slices", counted)
    stored, _ = build(tmp_path / "store", data)
    assert len(read) == 1
    assert [v.name for v in stored] == ["p0", "p1", "p2"]


def test_a_changed_file_or_geometry_is_read_again(tmp_path):
    data = write_tiny_cohort(tmp_path / "data", 1)
    before = build(tmp_path / "store", data)[0]
    image = sitk.ReadImage(str(data / "p0.nii"))
    sitk.WriteImage(image + 10, str(data / "p0.nii"))
    os.utime(data / "p0.nii", ns=(1, 1))
    after = build(tmp_path / "store", data)[0]
    assert data_sha256(before) != data_sha256(after)
    coarse = build(tmp_path / "store", data, spec=InputSpec(size_px=48, fov_mm=512.0))[0]
    assert coarse[0].slices.shape[1:] == (48, 48)


def test_the_voxels_beside_a_header_count_as_its_source(tmp_path):
    data = write_tiny_cohort(tmp_path / "data", 1)
    image = sitk.ReadImage(str(data / "p0.nii"))
    for key in image.GetMetaDataKeys():  # MetaImage cannot hold what NIfTI says
        image.EraseMetaData(key)
    (data / "p0.nii").unlink()
    sitk.WriteImage(image, str(data / "scan.mhd"))
    before = build(tmp_path / "store", data)[0]
    raw = data / "scan.raw"
    raw.write_bytes((np.fromfile(raw, np.int16) + np.int16(10)).tobytes())
    after = build(tmp_path / "store", data)[0]
    assert before[0].sha256 != after[0].sha256


def test_V39_a_short_volume_is_refused_and_named(tmp_path):
    """The slice store leaves it out by E-FEW, with the longest run and m."""
    data = write_tiny_cohort(tmp_path / "data", 2)
    slices = {name: read_volume(data / f"{name}.nii").num_slices for name in ("p0", "p1")}
    stored, refused = build(tmp_path / "store", data, min_slices=1000)
    assert stored == []
    assert [(r.name, r.code, r.cause) for r in refused] == [
        (name, "E-FEW", f"its longest run has {count} slices, m = 1000 needed")
        for name, count in slices.items()
    ]


def test_V72_a_volume_under_two_names_never_falls_on_both_sides_of_a_split(tmp_path):
    """The copy is named on stderr; it, its first and all else of theirs are one subject's."""
    data = write_tiny_cohort(tmp_path / "data", 4)
    (data / "again.nii").write_bytes((data / "p2.nii").read_bytes())
    subjects = {"again": "X", "p0": "X", "p1": "Y", "p2": "Z", "p3": "Z"}
    rows = [f"{volume},{subject}" for volume, subject in subjects.items()]
    (data / "manifest.csv").write_text("\n".join(["volume,subject", *rows]) + "\n")
    said = []
    stored, _ = build_slice_store(
        tmp_path / "store", find_volumes([data]), SPEC, min_slices=4, say=said.append
    )
    assert "p2 holds the same slices as again: both of subject X" in said
    assert {v.name: v.subject for v in stored} == subjects | {"p2": "X", "p3": "X"}
    for seed in range(8):
        sides = split_by_subject([*stored], ["p1"], 0.0, seed)
        assert {"again", "p0", "p2", "p3"} in [{v.name for v in side} for side in sides]


def test_adding_a_volume_moves_no_subject_across_the_split(tmp_path):
    data = write_tiny_cohort(tmp_path / "data", 5)
    volumes, _ = build(tmp_path / "store", data)
    training, validation = split_by_subject(volumes, ["p2"], 0.4, seed=0)
    assert "p2" in {v.name for v in validation}
    assert not {v.subject for v in training} & {v.subject for v in validation}
    fewer, _ = split_by_subject(volumes[:-1], ["p2"], 0.4, seed=0)
    assert {v.name for v in fewer} == {v.name for v in training} - {volumes[-1].name}
