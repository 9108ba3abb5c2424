"""What below some paths is a volume, what is a slice by itself, and what is neither."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ubr_pretrain.dicom_writer import save, slice_dataset, write_series
from tests.ubr_pretrain.stored_volumes import nii, scan
from tests.ubr_pretrain.test_volumes_png import folder_of, table
from ubr_pretrain.scans import content_of, find_scans, place_of


def grey(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20), 90, np.uint8)).save(path)
    return path


def test_numbered_slices_with_a_table_are_a_volume_and_without_one_are_slices(
    tmp_path: Path,
) -> None:
    folder_of(tmp_path, scan((3, 6, 5)))
    alone = find_scans([tmp_path])
    assert not alone.volumes
    assert [i.name for i in alone.images] == [f"000123_02_01_{n:03d}" for n in (40, 41, 42)]
    table(tmp_path, '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
    together = find_scans([tmp_path])
    assert [v.name for v in together.volumes] == ["000123_02_01"]
    assert not together.images


def test_numbered_8_bit_slices_are_single_even_beside_a_table(tmp_path: Path) -> None:
    for number in (1, 2):
        grey(tmp_path / "Images_png" / "000123_02_01" / f"{number}.png")
    table(tmp_path, '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
    found = find_scans([tmp_path])
    assert not found.volumes
    assert len(found.images) == 2


def test_everything_in_a_mixed_tree_is_found_once(tmp_path: Path) -> None:
    nii(tmp_path)
    picture = grey(tmp_path / "pictures" / "key slice.jpeg")
    grey(tmp_path / ".hidden.png")
    (tmp_path / "notes.png").write_text("no picture")
    write_series(tmp_path / "series", scan((4, 6, 5)))
    one = slice_dataset(scan((1, 6, 5))[0], (0.0, 0.0, 0.0), SeriesInstanceUID="1.2.3")
    save(one, tmp_path / "one" / "slice.dcm")
    found = find_scans([tmp_path, picture, tmp_path / "pictures"])
    assert sorted(v.name[:6] for v in found.volumes) == ["scan", "series"]
    assert found.volumes.skipped == {"hidden": 1, "not a volume": 1}
    assert sorted((i.name[:6], i.named) for i in found.images) == [
        ("key_sl", True),
        ("series", False),
    ]


def test_S01_a_dicom_slice_is_named_by_a_hash(tmp_path: Path) -> None:
    """A single DICOM slice is named by a hash of its series, its subject by one of the patient."""
    save(slice_dataset(scan((1, 6, 5))[0], (0.0, 0.0, 0.0)), tmp_path / "Doe Jane.dcm")
    (image,) = find_scans([tmp_path / "Doe Jane.dcm"]).images
    assert "Doe" not in image.name + image.subject
    assert "4711" not in image.name + image.subject


def test_our_own_results_are_no_scans(tmp_path: Path) -> None:
    grey(tmp_path / "scores" / "scan.png")
    assert len(find_scans([tmp_path]).images) == 1
    (tmp_path / "scores" / "scores.jsonl").touch()
    assert not find_scans([tmp_path]).images


@pytest.mark.parametrize("kind", ["file", "png", "dicom"])
def test_the_content_of_an_entry_changes_with_its_files_and_not_with_its_place(
    tmp_path: Path, kind: str
) -> None:
    (tmp_path / "a").mkdir()
    if kind == "file":
        files = [nii(tmp_path / "a")]
    elif kind == "png":
        folder = folder_of(tmp_path / "a", scan((3, 6, 5)))
        table(tmp_path / "a", '000123_02_01_040.png,123,"0.9, 0.8, 5.0"')
        files = sorted(folder.iterdir())
    else:
        files = sorted(write_series(tmp_path / "a", scan((3, 6, 5))).iterdir())
    (before,) = find_scans([tmp_path / "a"]).volumes
    contents, places = content_of(before), place_of(before)
    (tmp_path / "a").rename(tmp_path / "b")
    (moved,) = find_scans([tmp_path / "b"]).volumes
    assert content_of(moved) == contents
    assert place_of(moved) != places
    file = tmp_path / "b" / files[1 if len(files) > 1 else 0].relative_to(tmp_path / "a")
    file.write_bytes(file.read_bytes() + b"\0\0")
    (changed,) = find_scans([tmp_path / "b"]).volumes
    assert content_of(changed) != contents
