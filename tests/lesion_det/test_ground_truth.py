"""What COCO tools would take in silence is refused with its entry and rule."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
    assert truth.images[1].series_key == "000002_01_01"
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
