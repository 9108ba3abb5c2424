"""A small DeepLesion in COCO form, and defects to plant into it with what an audit must find.

A plant changes one annotation, or one image, and returns the codes it must cause, no other.
"""

import copy
import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.coco import lesions_to_coco
from converters.cohort import merge_rows
from converters.deeplesion import read_deeplesion, write_deeplesion
from converters.lesions import KeySlice, Lesion

SPLITS = ("train", "val", "test")
Files = dict[str, dict[str, Any]]
"""Split -> what its JSON holds."""

FREE_ID = 100_000


def small_table(path: Path, patients: int = 18) -> Path:
    """Write a table of two images a patient, one with two lesions; none at the edge."""
    rng = np.random.default_rng(3)
    lesions: list[Lesion] = []
    for patient in range(1, patients + 1):
        split = SPLITS[patient % 3]
        for number in (20, 40):
            side = 768 if patient % 5 == 0 else 512
            key_slice = KeySlice(
                split=split,
                patient_index=patient,
                study_index=1,
                series_id=1,
                key_slice_index=number,
                slice_range=(number - 2, number + 2),
                spacing_mm_zyx=(5.0, 0.8, 0.8),
                height_px=side,
                width_px=side,
                window_hu=(-175.0, 275.0),
                patient_gender="F",
                patient_age=60.0,
            )
            for i in range(1 if number == 20 else 2):
                x, y = rng.uniform(60, 120) + 150 * i, rng.uniform(200, 400)
                w, h = rng.uniform(15, 80), rng.uniform(15, 80)
                x1, y1, x2, y2 = (
                    (int(v * 1000) * 10 + 3 + int(rng.integers(1, 5))) / 10_000
                    for v in (x, y, x + w, y + h)
                )
                lesions.append(
                    Lesion(
                        key_slice=key_slice,
                        box_xyxy=(x1, y1, x2, y2),
                        measurement_xy=(x1 + 5, y1 + 5, x2 - 5, y2 - 5, *(x1 + 6, y1 + 6) * 2),
                        diameters_px=(30.5, 12.25),
                        normalized_location=(0.5, 0.5, 0.5),
                        lesion_type=-1 if split == "train" else 1 + (patient + i) % 8,
                        possibly_noisy=False,
                    )
                )
    write_deeplesion(path, lesions)
    return path


def converted(table: Path) -> Files:
    """What our own conversion makes of the table."""
    lesions = merge_rows(read_deeplesion(table).lesions)[0]
    return {
        split: lesions_to_coco(lesions, split, "DL_info.csv", "0").model_dump(mode="json")
        for split in SPLITS
    }


def written(files: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write one file a split."""
    paths = []
    for name, coco in files.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(coco))
        paths.append(path)
    return paths


Annotation = dict[str, Any]
Plant = Callable[[dict[str, Any], Annotation], Mapping[str, int]]


def _set(key: str, value: Callable[[Annotation], Any], *codes: str) -> Plant:
    def plant(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
        annotation[key] = value(annotation)
        return Counter(codes)

    return plant


def _box(change: Callable[..., list[float]], *codes: str) -> Plant:
    return _set("bbox", lambda annotation: change(*annotation["bbox"]), *codes)


def _new_box(change: Callable[..., list[float]], *codes: str) -> Plant:
    """Another box, with the area that it has."""

    def plant(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
        annotation["bbox"] = change(*annotation["bbox"])
        annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        return Counter(codes)

    return plant


def _without(key: str, *codes: str) -> Plant:
    def plant(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
        del annotation[key]
        return Counter(codes)

    return plant


def _area(change: Callable[..., float], code: str = "E-AREA") -> Plant:
    return _set("area", lambda annotation: change(*annotation["bbox"]), code)


def _removed(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
    coco["annotations"] = [each for each in coco["annotations"] if each is not annotation]
    return Counter(["E-LOST"])


def _doubled(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
    coco["annotations"].append({**copy.deepcopy(annotation), "id": FREE_ID + annotation["id"]})
    return Counter(["E-DUPLICATE"])


def _on_another_image(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
    ids = [image["id"] for image in coco["images"]]
    annotation["image_id"] = ids[ids.index(annotation["image_id"]) - 1]
    return Counter(["E-ELSEWHERE"])


def _same_id(coco: dict[str, Any], annotation: Annotation) -> Mapping[str, int]:
    coco["annotations"].append(
        {
            **annotation,
            "image_id": coco["images"][0]["id"],
            "bbox": [5.5, 5.25, 10.125, 11.5],
            "area": 10.125 * 11.5,
        }
    )
    return Counter(["E-ID", "E-EXTRA"])


IN_AN_ANNOTATION: Mapping[str, Plant] = {
    "area x*h": _area(lambda x, y, w, h: x * h),
    "area (w+1)*(h+1)": _area(lambda x, y, w, h: (w + 1) * (h + 1)),
    "area of nothing": _area(lambda x, y, w, h: 1e9),
    "area NaN": _area(lambda x, y, w, h: float("nan")),
    "area whole": _area(lambda x, y, w, h: float(int(w * h)), "W-AREAROUNDED"),
    "area text": _set("area", lambda a: "big", "E-TYPE"),
    "area missing": _without("area", "W-AREA"),
    "missing -1": _box(lambda x, y, w, h: [x + 1, y + 1, w, h], "E-SHIFT"),
    "inclusive": _box(lambda x, y, w, h: [x, y, w + 1, h + 1], "E-INCLUSIVE"),
    "from 1, inclusive": _box(
        lambda x, y, w, h: [x + 1, y + 1, w + 1, h + 1], "E-SHIFT", "E-INCLUSIVE"
    ),
    "xyxy": _box(lambda x, y, w, h: [x, y, x + w, y + h], "E-XYXY"),
    "xyxy from 1": _box(
        lambda x, y, w, h: [x + 1, y + 1, x + w + 1, y + h + 1], "E-XYXY", "E-SHIFT"
    ),
    "centre": _box(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "E-CENTRE"),
    "transposed": _box(lambda x, y, w, h: [y, x, h, w], "E-TRANSPOSED"),
    "half size": _box(lambda x, y, w, h: [x / 2, y / 2, w / 2, h / 2], "E-SCALED"),
    "in 0..1": _box(lambda x, y, w, h: [x / 512, y / 512, w / 512, h / 512], "E-SCALED"),
    "rounded down": _box(lambda *box: [float(int(v)) for v in box], "W-ROUNDED"),
    "one decimal": _box(lambda *box: [round(v, 1) for v in box], "W-ROUNDED"),
    "other box": _box(lambda x, y, w, h: [x + 0.3 * w, y, w, h * 1.2], "E-OTHERBOX"),
    "far box": _new_box(lambda x, y, w, h: [3.25, 4.5, 9.0, 8.0], "E-EXTRA", "E-LOST"),
    "outside": _new_box(lambda x, y, w, h: [x, y, 2000.5, h * 9], "E-EXTRA", "E-LOST", "E-OUTSIDE"),
    "NaN": _box(lambda x, y, w, h: [float("nan"), y, w, h], "E-NAN"),
    "infinite": _box(lambda x, y, w, h: [x, y, 10**400, h], "E-NAN"),
    "no width": _box(lambda x, y, w, h: [x, y, 0, h], "E-ZERO"),
    "negative": _box(lambda x, y, w, h: [x + w, y + h, -w, -h], "E-ZERO"),
    "three numbers": _box(lambda x, y, w, h: [x, y, w], "E-TYPE"),
    "box of text": _box(lambda *box: [str(v) for v in box], "E-TYPE"),
    "box missing": _without("bbox", "E-TYPE"),
    "crowd": _set("iscrowd", lambda a: 1, "E-CROWD"),
    "crowd missing": _without("iscrowd", "W-CROWD"),
    "id 0": _set("id", lambda a: 0, "E-ID0"),
    "id missing": _without("id", "E-ID"),
    "id a list": _set("id", lambda a: [1], "E-ID"),
    "id repeated": _same_id,
    "image not listed": _set("image_id", lambda a: 54321, "E-ORPHAN"),
    "image missing": _without("image_id", "E-TYPE"),
    "other image": _on_another_image,
    "category unknown": _set("category_id", lambda a: 7, "E-CATEGORY"),
    "category 0": _set("category_id", lambda a: 0, "E-BACKGROUND"),
    "type": _set("lesion_type", lambda a: 1 + a["lesion_type"] % 8, "E-LESIONTYPE"),
    "no polygon": _set("segmentation", lambda a: [[]], "E-SEGMENTATION"),
    "removed": _removed,
    "doubled": _doubled,
}
"""Each on an annotation of val or test, whose types are known."""

Image = dict[str, Any]


def _rename(change: Callable[[str], Any], *codes: str) -> Plant:
    return _set("file_name", lambda image: change(image["file_name"]), *codes)


def _listed_again(coco: dict[str, Any], image: Image) -> Mapping[str, int]:
    coco["images"].append({**image, "id": FREE_ID + image["id"]})
    return Counter(["E-DUPIMAGE"])


def _image_removed(coco: dict[str, Any], image: Image) -> Mapping[str, int]:
    coco["images"] = [each for each in coco["images"] if each is not image]
    coco["annotations"] = [a for a in coco["annotations"] if a["image_id"] != image["id"]]
    return Counter(["E-ABSENT"])


def _one_box_around(coco: dict[str, Any], image: Image) -> Mapping[str, int]:
    """The lesions of an image in one box; an image of one lesion stays as it is."""
    mine = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
    if len(mine) == 1:
        return Counter()
    x1, y1 = (min(a["bbox"][i] for a in mine) for i in (0, 1))
    x2, y2 = (max(a["bbox"][i] + a["bbox"][i + 2] for a in mine) for i in (0, 1))
    mine[0]["bbox"], mine[0]["area"] = [x1, y1, x2 - x1, y2 - y1], (x2 - x1) * (y2 - y1)
    coco["annotations"] = [a for a in coco["annotations"] if a not in mine[1:]]
    return Counter(["E-MERGED"])


def _extra_image(coco: dict[str, Any], image: Image) -> Mapping[str, int]:
    name = image["file_name"].replace("/020", "/021").replace("/040", "/041")
    coco["images"].append({**image, "id": FREE_ID + image["id"], "file_name": name})
    return Counter(["E-UNKNOWN"])


IN_AN_IMAGE: Mapping[str, Plant] = {
    "half size stated": _set("width", lambda image: image["width"] // 2, "E-SIZE"),
    "size missing": _without("height", "E-SIZE"),
    "no slice in the name": _rename(lambda name: "lesion.png", "E-NAME", "E-ABSENT"),
    "name a number": _rename(lambda name: 12, "E-TYPE", "E-ABSENT"),
    "jpg": _rename(lambda name: name.replace(".png", ".jpg"), "E-FORMAT"),
    "drawn": _rename(lambda name: "Key_slices/" + name.replace("/", "_"), "E-DRAWN"),
    "listed again": _listed_again,
    "removed": _image_removed,
    "merged": _one_box_around,
    "no key slice": _extra_image,
}
"""Each on an image."""
