"""Every fast way of reading gives the bits of the plain one."""

import gzip
import zlib
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.stored_volumes import scan
from ubr_pretrain import stored_file, volume_file
from ubr_pretrain.ct import AIR_HU, InputSpec, Volume, VolumeRefused
from ubr_pretrain.hounsfield import MIN_SOFT_TISSUE_SHARE, looks_like_hu, raw_to_hu
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.stored_file import StoredFile
from ubr_pretrain.volumes import read_volume

ANYWHERE = Path("scan.nii")


def inflated(content: bytes, inflater: object, folder: Path, block: int) -> tuple[str, bytes]:
    """Return the refusal, or what a gzip file holds, by one inflater in blocks of a size."""
    path = folder / "scan.nii.gz"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_file, "inflater", inflater)
        patch.setattr(stored_file, "CHUNK_BYTES", block)
        taken = bytearray()
        try:
            with StoredFile(path) as file:
                while part := file.stream.read(block):
                    taken += part
        except VolumeRefused as refusal:
            return refusal.code, b""
    return "", bytes(taken)


@given(
    members=st.lists(st.binary(max_size=400).map(lambda b: b * 9), min_size=1, max_size=3),
    level=st.sampled_from([0, 1, 9]),
    tail=st.sampled_from([b"", b"\0", b"tail of another kind"]),
    cut=st.integers(0, 60),
    flip=st.one_of(st.none(), st.integers(80, 10_000)),
    block=st.sampled_from([1, 7, 64, 5000]),
)
def test_N64_both_inflaters_give_the_same_bytes_or_refuse(
    members, level, tail, cut, flip, block, tmp_path_factory
):
    """Isal and zlib read the same bytes or refuse the same files, in pieces of any size."""
    isal_zlib = pytest.importorskip("isal.isal_zlib", reason="needs isal", exc_type=ImportError)
    content = bytearray(b"".join(gzip.compress(m, level, mtime=0) for m in members) + tail)
    if flip is not None:
        content[(flip // 8) % len(content)] ^= 1 << flip % 8
    content = content[: max(1, len(content) - cut)]
    folder = tmp_path_factory.mktemp("gz")
    plain = inflated(bytes(content), zlib, folder, block)
    fast = inflated(bytes(content), isal_zlib, folder, block)
    assert bool(fast[0]) == bool(plain[0])
    assert fast[1] == plain[1]
    if flip is None and not cut and not tail:
        assert fast == ("", b"".join(members))


@given(
    dtype=st.sampled_from(["<i2", ">i2", "<u2", "i1", "u1", "<i4", "<f4", "<f8"]),
    slope=st.sampled_from([1.0, -1.0, 2.0, 0.5, 1.0000001, 20000.0]),
    intercept=st.sampled_from([0.0, -1024.0, 1000.0, -0.25, -32768.0]),
    spread=st.sampled_from([40, 2000, 40000]),
    seed=st.integers(0, 999),
)
def test_hounsfield_units_are_those_of_float64(dtype, slope, intercept, spread, seed):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.iinfo(np.int32)
    wide = rng.integers(-spread, spread, (3, 5, 4)).clip(limits.min, limits.max)
    raw = wide.astype(dtype)
    exact = raw.astype(np.float64) * slope + intercept
    if exact.max() > np.iinfo(np.int16).max:
        with pytest.raises(VolumeRefused, match=r"E-NOHU"):
            raw_to_hu(raw, slope, intercept, ANYWHERE)
        return
    hu, notes = raw_to_hu(raw, slope, intercept, ANYWHERE)
    assert np.array_equal(hu, np.rint(np.maximum(exact, AIR_HU)))
    assert bool(notes) == bool(exact.min() < AIR_HU)
    if notes:
        assert f"{exact.min():g}" in notes[0]


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4"])
def test_a_volume_read_in_blocks_is_the_whole(tmp_path, monkeypatch, signs, dtype):
    hu = scan((7, 6, 5))
    image = nib.Nifti1Image(
        hu.transpose(2, 1, 0)[:: signs[0], :: signs[1], :: signs[2]].astype(dtype),
        np.diag([-2.0 * signs[0], -2.0 * signs[1], -3.0 * signs[2], 1.0]),
    )
    nib.save(image, tmp_path / "scan.nii.gz")
    for num_bytes in (1, 3 * 6 * 5 * np.dtype(dtype).itemsize, 1 << 20):
        monkeypatch.setattr(volume_file, "BLOCK_BYTES", num_bytes)
        volume = read_volume(tmp_path / "scan.nii.gz")
        assert np.array_equal(volume.hu, hu)
        assert volume.hu.flags.c_contiguous


def test_a_fault_of_the_file_goes_before_one_of_its_numbers(tmp_path):
    """A flipped bit may make a number that is no HU: the cause is the file."""
    hu = np.zeros((4, 64, 64), np.uint16)
    hu[0, 0, 0] = 60_000
    nib.save(nib.Nifti1Image(hu.transpose(), np.diag([-1.0, -1, 1, 1])), tmp_path / "scan.nii.gz")
    content = bytearray((tmp_path / "scan.nii.gz").read_bytes())
    with pytest.raises(VolumeRefused, match=r"E-NOHU.*60000"):
        read_volume(tmp_path / "scan.nii.gz")
    content[-6] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(VolumeRefused, match="E-CRC"):
        read_volume(tmp_path / "scan.nii.gz")


@given(seed=st.integers(0, 300), share=st.floats(0.0, 0.03))
def test_the_share_of_soft_tissue_is_judged_as_if_all_were_counted(seed, share):
    rng = np.random.default_rng(seed)
    hu = np.where(rng.random((5, 24, 22)) < share, 40, -900).astype(np.int16)
    hu[0, 1, 1] = 0
    sample = hu[:, ::2, ::2]
    counted = np.count_nonzero((sample > -200) & (sample < 300)) / sample.size
    doubt = looks_like_hu(Volume(hu, (1.0, 1.0, 1.0)))
    assert (doubt is None) == (counted >= MIN_SOFT_TISSUE_SHARE)
    if doubt:
        assert f"{100 * counted:.2g} %" in doubt


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(20, 90), st.integers(20, 90)),
    size_px=st.sampled_from([32, 48, 64]),
    fov_mm=st.sampled_from([None, 60.0, 33.0, 200.0]),
    seed=st.integers(0, 99),
)
def test_slices_shrink_in_pairs_as_they_do_alone(shape, size_px, fov_mm, seed):
    hu = np.random.default_rng(seed).integers(-1024, 3071, shape).astype(np.int16)
    spec = InputSpec(size_px=size_px, fov_mm=fov_mm)
    together = resample_slices(hu, (1.0, 0.9), spec)
    alone = [resample_slices(one[np.newaxis], (1.0, 0.9), spec)[0] for one in hu]
    assert np.array_equal(together, np.stack(alone))


def test_one_slice_shrinks_as_opencv_averages_areas():
    hu = scan((3, 50, 70))
    plain = [
        np.rint(cv2.resize(one.astype(np.float32), (32, 23), interpolation=cv2.INTER_AREA))
        for one in hu
    ]
    assert np.array_equal(
        resample_slices(hu, (1.0, 1.0), InputSpec(size_px=32))[:, 4:27], np.stack(plain)
    )
