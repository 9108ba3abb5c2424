"""Records <-> COCO JSON: nothing is lost, and pycocotools agrees with every number."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from converters.coco import coco_to_lesions, lesions_to_coco, read_coco, write_coco
from converters.cohort import OFFICIAL, merge_rows
from converters.deeplesion import DeepLesionTable, read_deeplesion, write_deeplesion
from converters.lesions import DeepLesionRefused, Lesion
from lesion_det.ground_truth import read_ground_truth
from tests.converters.conftest import MakeRow, WriteTable
from tests.converters.strategies import lesion_lists

by_file = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def through_coco(lesions: list[Lesion], folder: Path) -> list[Lesion]:
    """Write one file a split and read them all back."""
    back: list[Lesion] = []
    for split in OFFICIAL:
        write_coco(folder / f"{split}.json", lesions_to_coco(lesions, split, "DL_info.csv", "0"))
        back += coco_to_lesions(read_coco(folder / f"{split}.json"))
    return back


@by_file
@given(lesions=lesion_lists())
def test_L23_table_to_coco_to_table_is_equal(lesions, tmp_path: Path):
    """Table to COCO to table gives every record back, equal to the last digit."""
    write_deeplesion(tmp_path / "before.csv", merge_rows(lesions)[0])
    records = list(read_deeplesion(tmp_path / "before.csv").lesions)
    write_deeplesion(tmp_path / "after.csv", merge_rows(through_coco(records, tmp_path))[0])
    assert (tmp_path / "before.csv").read_bytes() == (tmp_path / "after.csv").read_bytes()


@by_file
@given(lesions=lesion_lists())
def test_L23_ids_count_from_one_and_boxes_have_an_area_inside_their_image(lesions, tmp_path: Path):
    """Ids are unique and count from 1, boxes are x, y, w, h with an area inside their image,
    iscrowd is 0."""
    for split in OFFICIAL:
        coco = lesions_to_coco(lesions, split, "DL_info.csv", "0")
        write_coco(tmp_path / "any.json", coco)
        raw = json.loads((tmp_path / "any.json").read_text("utf-8"))
        assert [image["id"] for image in raw["images"]] == list(range(1, len(raw["images"]) + 1))
        annotations = raw["annotations"]
        assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
        assert len({image["file_name"] for image in raw["images"]}) == len(raw["images"])
        sizes = {image["id"]: (image["width"], image["height"]) for image in raw["images"]}
        for a in annotations:
            x, y, w, h = a["bbox"]
            assert a["area"] == w * h > 0
            assert x >= 0
            assert y >= 0
            assert x + w <= sizes[a["image_id"]][0] + 1e-6
            assert y + h <= sizes[a["image_id"]][1] + 1e-6
            assert (a["iscrowd"], a["category_id"]) == (0, 1)


@by_file
@given(lesions=lesion_lists())
def test_L23_pycocotools_and_our_metrics_read_the_same_boxes(lesions, tmp_path: Path):
    """pycocotools and our metrics read the same boxes from the file."""
    split = lesions[0].key_slice.split
    path = tmp_path / "one.json"
    write_coco(path, lesions_to_coco(lesions, split, "DL_info.csv", "0"))
    judge, ours = COCO(str(path)), read_ground_truth(path)
    assert sorted(judge.getImgIds()) == [image.id for image in ours.images]
    for image in ours.images:
        theirs = np.array([a["bbox"] for a in judge.loadAnns(judge.getAnnIds([image.id]))])
        theirs[:, 2:] += theirs[:, :2]
        np.testing.assert_allclose(theirs, image.boxes_xyxy, atol=1e-9)
        mine = [le.box_xyxy for le in lesions if le.key_slice.file_name == image.file_name]
        np.testing.assert_allclose(sorted(theirs.tolist()), sorted(mine), atol=1e-6)


def test_L23_pycocotools_gives_perfect_detections_full_marks(
    make_row: MakeRow, write_table: WriteTable, tmp_path: Path
):
    """pycocotools gives the lesions themselves, taken as detections, an AP of 1."""
    rows = [make_row(), make_row(Bounding_boxes="300, 300, 340, 350")]
    lesions = list(read_deeplesion(write_table(rows)).lesions)
    write_coco(tmp_path / "val.json", lesions_to_coco(lesions, "val", "DL_info.csv", "0"))
    judge = COCO(str(tmp_path / "val.json"))
    detections = judge.loadRes(
        [
            {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.5}
            for a in judge.dataset["annotations"]
        ]
    )
    evaluation = COCOeval(judge, detections, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


READ_BY_FIFTYONE = {
    "categories": {"id", "name"},
    "images": {"id", "file_name", "width", "height"},
    "annotations": {"id", "image_id", "category_id", "bbox", "area", "iscrowd"},
}
"""By COCODetectionDatasetImporter; further keys of an annotation become fields of a detection."""

FIELDS_OF_FIFTYONE = {
    *("label", "bounding_box", "mask", "mask_path", "confidence", "index", "tags", "attributes"),
    *("segmentation", "keypoints", "score", "supercategory", "coco_id", "instance"),
}


def test_L23_fiftyone_finds_what_its_importer_reads():
    """FiftyOne is not run here: the files have every key that its importer reads, boxes that it can
    divide by the size of their image, and no further key named like a field of its detections."""
    table = read_deeplesion(Path(__file__).parent / "golden" / "DL_info.csv")
    for split in OFFICIAL:
        coco = lesions_to_coco(table.lesions, split, "DL_info.csv", "0").model_dump(mode="json")
        for kind, keys in READ_BY_FIFTYONE.items():
            assert all(keys <= entry.keys() for entry in coco[kind])
        images = {image["id"]: image for image in coco["images"]}
        assert len({category["id"] for category in coco["categories"]}) == 1
        assert coco["annotations"]
        for annotation in coco["annotations"]:
            further = annotation.keys() - READ_BY_FIFTYONE["annotations"]
            assert not further & FIELDS_OF_FIFTYONE
            width, height = (images[annotation["image_id"]][side] for side in ("width", "height"))
            x, y, w, h = annotation["bbox"]
            assert 0 <= x / width < (x + w) / width <= 1
            assert 0 <= y / height < (y + h) / height <= 1


def test_L08_lesions_of_one_slice_are_one_image(make_row: MakeRow, write_table: WriteTable):
    """They are one image with several annotations."""
    rows = [make_row(), make_row(Bounding_boxes="300, 300, 340, 350")]
    coco = lesions_to_coco(read_deeplesion(write_table(rows)).lesions, "val", "DL_info.csv", "0")
    assert len(coco.images) == 1
    assert [a.image_id for a in coco.annotations] == [1, 1]


def test_the_json_is_what_the_detector_expects(make_row: MakeRow, write_table: WriteTable):
    (lesion,) = read_deeplesion(write_table([make_row()])).lesions
    coco = lesions_to_coco(
        [lesion], "val", "DL_info.csv", "abc", {lesion.key_slice: "000012_03_01_040.png"}
    )
    assert coco.images[0].model_dump() == {
        "id": 1,
        "file_name": "000012_03_01_040.png",
        "height": 512,
        "width": 512,
        "patient_index": 12,
        "study_index": 3,
        "series_id": 1,
        "key_slice_index": 40,
        "slice_range": (34, 46),
        "spacing_mm_zyx": (5.0, 0.75, 0.75),
        "window_hu": (-175.0, 275.0),
        "patient_gender": "F",
        "patient_age": 62.0,
    }
    assert coco.annotations[0].model_dump() == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": (95.5, 199.25, 40.0, 29.75),
        "area": 1190.0,
        "iscrowd": 0,
        "lesion_type": 4,
        "diameters_px": (35.9, 17.3),
        "possibly_noisy": False,
        "measurement_coordinates": (100.5, 204.25, 130.5, 224.0, 109.0, 219.125, 119.0, 205.0),
        "normalized_location": (0.21, 0.4, 0.0389802),
    }
    assert coco.info.images_checked


@pytest.mark.parametrize("text", ["", "{", "[]", '{"images": []}'])
def test_another_json_is_refused_by_name(text: str, tmp_path: Path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(DeepLesionRefused, match=r"other\.json: "):
        read_coco(path)


def test_an_annotation_of_an_unlisted_image_is_refused(make_row: MakeRow, write_table: WriteTable):
    lesions = read_deeplesion(write_table([make_row()])).lesions
    coco = lesions_to_coco(lesions, "val", "DL_info.csv", "0")
    orphan = coco.model_copy(update={"images": ()})
    with pytest.raises(DeepLesionRefused, match="annotation 1: image 1 is not listed"):
        coco_to_lesions(orphan)


@pytest.mark.real
def test_L23_the_real_table_survives_coco(real_table: DeepLesionTable, tmp_path: Path):
    """The same round trip of all 10,752 official rows at hand."""
    lesions = merge_rows(real_table.lesions)[0]
    assert merge_rows(through_coco(lesions, tmp_path))[0] == lesions
    for split, images, annotations in (("val", 4_793, 4_889), ("test", 4_831, 4_927)):
        judge = COCO(str(tmp_path / f"{split}.json"))
        assert (len(judge.imgs), len(judge.anns)) == (images, annotations)
