"""What COCO tools would take in silence is refused with its entry and rule."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.distinct_keys import distinct_keys, require_distinct_keys
from converters.foreign_coco import read_foreign_coco
from converters.lesions import DeepLesionRefused
from lesion_det.ground_truth import GroundTruthRefused, read_ground_truth
from tests.lesion_det.toy_split import toy_coco, write_text


def _write(folder: Path, coco: dict[str, Any]) -> Path:
    return write_text(folder / "val.json", json.dumps(coco))


def test_records_hold_corner_boxes_in_order_of_ids(tmp_path: Path) -> None:
    coco = toy_coco(3)
    coco["images"].reverse()
    coco["annotations"].append(coco["annotations"][0] | {"id": 9, "bbox": [1.5, 2.0, 3.0, 4.0]})
    path = _write(tmp_path, coco)

    truth = read_ground_truth(path)

    assert [image.id for image in truth.images] == [1, 2, 3]
    np.testing.assert_array_equal(
        truth.images[0].boxes_xyxy, [[10.0, 20.0, 40.0, 60.0], [1.5, 2.0, 4.5, 6.0]]
    )
    assert truth.images[0].annotation_ids.tolist() == [1, 9]
    assert (truth.num_lesions, truth.num_patients) == (4, 3)
    assert truth.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_image_without_lesions_is_kept(tmp_path: Path) -> None:
    coco = toy_coco(2)
    del coco["annotations"][1]
    truth = read_ground_truth(_write(tmp_path, coco))
    assert truth.images[1].boxes_xyxy.shape == (0, 4)
    assert truth.images[1].diameters_px.shape == (0, 2)


@pytest.mark.parametrize(
    ("where", "key", "value", "complaint"),
    [
        ("annotations", "id", 0, "annotations.1.id: Input should be greater than 0"),
        ("annotations", "id", 1, "annotation id 1 occurs more than once"),
        ("annotations", "bbox", [1, 2, float("nan"), 4], "finite number"),
        ("annotations", "bbox", [1, 2, float("inf"), 4], "finite number"),
        ("annotations", "bbox", [1, 2, -3, 4], "annotation 2: bbox .* has no area"),
        ("annotations", "bbox", [1, 2, 0, 4], "annotation 2: bbox .* has no area"),
        ("annotations", "bbox", [1, 2, 3], r"annotations.1.bbox.3: Field required"),
        ("annotations", "bbox", [500, 2, 13, 4], "annotation 2: .* leaves its 512x512 px image"),
        ("annotations", "bbox", [-1, 2, 13, 4], "annotation 2: .* leaves its 512x512 px image"),
        ("annotations", "category_id", 2, "annotation 2: category 2 is unknown"),
        ("annotations", "iscrowd", 1, "annotation 2: iscrowd 1"),
        ("annotations", "image_id", 77, "annotation 2 is of image 77, which is not listed"),
        ("images", "id", 0, "images.1.id: Input should be greater than 0"),
        ("images", "id", 1, "image id 1 occurs more than once"),
        ("images", "file_name", "000001_01_01/109.png", "file_name 000001.* more than once"),
        ("images", "spacing_mm_zyx", [0, 0.8, 0.8], "images.1.spacing_mm_zyx.0"),
        ("images", "spacing_mm_zyx", [5, 0.8, float("inf")], "images.1.spacing_mm_zyx.2"),
        ("annotations", "diameters_px", [float("nan"), 1], "annotations.1.diameters_px.0"),
        ("annotations", "diameters_px", [float("inf"), 1], "annotations.1.diameters_px.0"),
        ("images", "height", "512", "images.1.height: Input should be a valid integer"),
    ],
)
def test_E01_entry_that_would_falsify_a_metric_is_refused(
    tmp_path: Path, where: str, key: str, value: object, complaint: str
) -> None:
    """Ids of 0 or twice, boxes of NaN, without area or outside, unknown images and categories:
    refused, entry and rule named."""
    coco = toy_coco(2)
    coco[where][1][key] = value
    with pytest.raises(GroundTruthRefused, match=complaint) as refusal:
        read_ground_truth(_write(tmp_path, coco))
    assert str(tmp_path / "val.json") in str(refusal.value)


def test_E01_no_images_is_no_data(tmp_path: Path) -> None:
    """A file without images is E-NODATA."""
    coco = toy_coco(1) | {"images": [], "annotations": []}
    with pytest.raises(GroundTruthRefused, match="E-NODATA"):
        read_ground_truth(_write(tmp_path, coco))


@pytest.mark.parametrize("text", ["", "{", "[]", "version https://git-lfs.github.com/spec/v1"])
def test_file_that_is_not_coco_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(GroundTruthRefused, match=r"val\.json: "):
        read_ground_truth(write_text(tmp_path / "val.json", text))


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthRefused, match=r"absent\.json: no such file"):
        read_ground_truth(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("patient_index", 7, 2),
        ("study_index", 3, 1),
        ("series_id", 9, 1),
        ("key_slice_index", 105, 109),
    ],
)
@pytest.mark.parametrize("name", ["000002_01_01/109.png", "000002_01_01_109.png"])
def test_N65_indices_that_the_name_denies_are_refused(
    tmp_path: Path, name: str, key: str, value: int, named: int
) -> None:
    """A name of DeepLesion's form says patient, study, series and slice; an image whose indices say
    another is refused, with file, image, both values."""
    coco = toy_coco(2)
    coco["images"][1] |= {"file_name": name, key: value}
    words = rf"val\.json: image 2 \({name}\): {key} {value}, its file_name says {named}$"
    with pytest.raises(GroundTruthRefused, match=words):
        read_ground_truth(_write(tmp_path, coco))


@pytest.mark.parametrize("name", ["liver/109.png", "scan_2.png", "a/000009_01_01/001.png", "2.png"])
def test_N65_names_of_another_form_say_nothing(tmp_path: Path, name: str) -> None:
    """A name of another form is left alone."""
    coco = toy_coco(2)
    coco["images"][1]["file_name"] = name
    assert read_ground_truth(_write(tmp_path, coco)).images[1].file_name == name


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("000001_01_01/109.png", "./000001_01_01/109.png"),
        ("000001_01_01/109.png", "000001_01_01//109.png"),
        ("000001_01_01/109.png", "000001_01_01_109.png"),
        ("000001_01_01_109.png", "000001_01_01/0109.png"),
        ("liver/a.png", "liver/./a.png"),
    ],
)
def test_N66_a_slice_under_two_spellings_is_refused(tmp_path: Path, first: str, again: str) -> None:
    """A slice that stands in the file again, under another spelling of its name, would count
    twice: refused, both named."""
    coco = toy_coco(2)
    coco["images"][0]["file_name"] = first
    coco["images"][1] |= {"file_name": again, "patient_index": 1}
    words = rf"file_name {again} occurs more than once: {first} is the same slice$"
    with pytest.raises(GroundTruthRefused, match=words):
        read_ground_truth(_write(tmp_path, coco))


def test_N66_a_lesion_under_two_ids_is_refused(tmp_path: Path) -> None:
    """An annotation that repeats image and box of another under an id of its own would count a
    lesion twice: refused, with both ids and the tool that lists all such."""
    coco = toy_coco(2)
    coco["annotations"].append(coco["annotations"][0] | {"id": 9})
    words = r"annotations 1 and 9 are one lesion: image 1, bbox \[10.*\]; audit_coco\.py"
    with pytest.raises(GroundTruthRefused, match=words):
        read_ground_truth(_write(tmp_path, coco))
    coco["annotations"][-1]["image_id"] = 2
    coco["annotations"][-1]["bbox"] = [10.0, 20.0, 30.0, 40.5]
    assert read_ground_truth(_write(tmp_path, coco)).num_lesions == 3


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"categories"', '"annotations": [], "categories"', "annotations"),
        ('"iscrowd": 0', '"iscrowd": 0, "bbox": [1, 2, 3, 4]', "bbox"),
        ('"split": "val"', '"split": "val", "split": "val"', "split"),
    ],
)
def test_N67_a_key_given_twice_is_refused(tmp_path: Path, old: str, new: str, key: str) -> None:
    """Of a key that an object has twice, JSON readers keep the last in silence: refused by name,
    here and by the audit."""
    path = write_text(tmp_path / "val.json", json.dumps(toy_coco(2)).replace(old, new, 1))
    words = f"val.json: .*key '{key}' occurs more than once in one object"
    with pytest.raises(GroundTruthRefused, match=words):
        read_ground_truth(path)
    with pytest.raises(DeepLesionRefused, match=words):
        read_foreign_coco(path)


@given(
    st.recursive(
        st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_N67_objects_of_distinct_keys_are_read_as_they_are(value: object) -> None:
    """What has no key twice is read as Python's own reader reads it."""
    text = json.dumps(value)
    assert json.loads(text, object_pairs_hook=distinct_keys) == value
    require_distinct_keys(text.encode())


def test_N67_numbers_of_any_length_hide_no_key() -> None:
    """Numbers longer than Python turns into integers hide no key and end in no traceback."""
    long = b'{"a": ' + b"9" * 5000
    require_distinct_keys(long + b', "b": 1}')
    with pytest.raises(ValueError, match="key 'a' occurs more than once"):
        require_distinct_keys(long + b', "a": 1}')


@pytest.mark.parametrize("key", ["num_images", "num_annotations"])
@pytest.mark.parametrize("stated", [3, "2", None, 1e300])
def test_N67_other_counts_than_those_stated_are_refused(
    tmp_path: Path, key: str, stated: object
) -> None:
    """The file says how many images and annotations it holds; one that lists more or fewer was
    cut or edited: refused, with both numbers."""
    coco = toy_coco(2)
    coco["info"] |= {"num_images": 2, "num_annotations": 2}
    assert read_ground_truth(_write(tmp_path, coco)).num_lesions == 2
    coco["info"][key] = stated
    with pytest.raises(GroundTruthRefused, match=rf"info\.{key} is .*, but 2 are listed"):
        read_ground_truth(_write(tmp_path, coco))


@pytest.mark.parametrize(
    ("where", "key", "value", "complaint"),
    [
        ("images", "patient_index", 2**70, "patient_index: Input should be less than or equal"),
        ("images", "patient_index", -5, "patient_index: Input should be greater than or equal"),
        ("images", "study_index", 2**63, "study_index: Input should be less than or equal"),
        ("images", "width", 10**12, "width: Input should be less than or equal"),
        ("images", "spacing_mm_zyx", [1e300, 1, 1], "spacing_mm_zyx.0: Input should be less"),
        ("images", "window_hu", [275, -175], "window_hu: .*must have a width"),
        ("images", "window_hu", [40, 40], "window_hu: .*must have a width"),
        ("images", "slice_range", [115, 103], r"image 2 .*: slice_range \[115, 103\] lacks .* 109"),
        ("images", "slice_range", [110, 115], r"image 2 .*: slice_range \[110, 115\] lacks .* 109"),
        ("annotations", "lesion_type", 0, "lesion_type: Input should be -1, 1, 2"),
        ("annotations", "lesion_type", 9, "lesion_type: Input should be -1, 1, 2"),
        ("annotations", "diameters_px", [1e300, 1], "diameters_px.0: Input should be less"),
    ],
)
def test_N67_values_that_no_slice_can_have_are_refused(
    tmp_path: Path, where: str, key: str, value: object, complaint: str
) -> None:
    """Indices beyond 64 bits or below 0, windows and ranges that run backwards, a range without its
    key slice, coarse types that DeepLesion has not: refused, entry and rule named."""
    coco = toy_coco(2)
    coco[where][1][key] = value
    with pytest.raises(GroundTruthRefused, match=complaint):
        read_ground_truth(_write(tmp_path, coco))
