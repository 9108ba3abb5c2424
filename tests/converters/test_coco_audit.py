"""The audit finds every planted defect, as often as it was planted, and nothing else."""

import copy
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.coco_audit import audit_coco
from converters.conversion import ConversionConfig, convert_deeplesion
from converters.deeplesion import read_deeplesion, write_deeplesion
from converters.defects import KINDS
from tests.converters.conftest import png_bytes
from tests.converters.planted import (
    FREE_ID,
    IN_AN_ANNOTATION,
    IN_AN_IMAGE,
    SPLITS,
    Files,
    converted,
    small_table,
    written,
)
from ubr_pretrain.phantom_deeplesion import write_deeplesion as write_phantoms


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_table(tmp_path_factory.mktemp("table") / "DL_info.csv")


@pytest.fixture(scope="module")
def sound(table: Path) -> Files:
    return converted(table)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


def found(files: Files, table: Path, folder: Path, **more) -> Counter[str]:
    audit = audit_coco(written(files, folder), table, **more)
    assert {defect.code for defect in audit.defects} <= KINDS.keys()
    return Counter(defect.code for defect in audit.defects)


def test_our_own_conversion_is_clean(sound: Files, table: Path, folder: Path):
    assert found(sound, table, folder) == {}


@pytest.mark.parametrize("name", IN_AN_ANNOTATION)
def test_one_defect_of_an_annotation_is_found_alone(
    name: str, sound: Files, table: Path, folder: Path
):
    files = copy.deepcopy(sound)
    expected = IN_AN_ANNOTATION[name](files["val"], files["val"]["annotations"][4])
    assert found(files, table, folder) == expected
    assert expected


@pytest.mark.parametrize("name", IN_AN_IMAGE)
def test_one_defect_of_an_image_is_found_alone(name: str, sound: Files, table: Path, folder: Path):
    files = copy.deepcopy(sound)
    expected = IN_AN_IMAGE[name](files["test"], files["test"]["images"][3])
    assert found(files, table, folder) == expected
    assert expected


@settings(max_examples=60)
@given(data=st.data())
def test_several_defects_at_once_are_counted_exactly(
    sound: Files, table: Path, folder: Path, data: st.DataObject
):
    """At most one on an image, so that none hides another."""
    files = copy.deepcopy(sound)
    expected: Counter[str] = Counter()
    chosen = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["val", "test"]), st.integers(1, 11)), unique=True, max_size=6
        )
    )
    zero_id = set[str]()
    for split, image_id in chosen:
        coco = files[split]
        if data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(IN_AN_IMAGE)))
            (image,) = (each for each in coco["images"] if each["id"] == image_id)
            expected.update(IN_AN_IMAGE[name](coco, image))
            continue
        name = data.draw(st.sampled_from(sorted(IN_AN_ANNOTATION)))
        mine = [a for a in coco["annotations"] if a.get("image_id") == image_id]
        if not mine or (name == "id 0" and split in zero_id) or name == "other image":
            continue
        if name == "id 0":
            zero_id.add(split)
        expected.update(
            IN_AN_ANNOTATION[name](coco, mine[data.draw(st.integers(0, 1)) % len(mine)])
        )
    assert found(files, table, folder) == expected


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_what_changes_no_lesion_gives_nothing(sound: Files, table: Path, folder: Path, seed: int):
    """Other order, other ids, other keys, names of any spelling: the same data."""
    rng = np.random.default_rng(seed)
    files = copy.deepcopy(sound)
    spellings = [
        lambda name: name,
        lambda name: name.replace("/", "_"),
        lambda name: f"data/DeepLesion/Images_png/Images_png/{name}",
        lambda name: "Images_png\\" + name.replace("/", "\\"),
        lambda name: name.removesuffix(".png"),
        lambda name: "./" + name.lstrip("0").replace(".png", ".PNG"),
    ]
    for coco in files.values():
        rng.shuffle(coco["images"])
        rng.shuffle(coco["annotations"])
        spelling = spellings[rng.integers(len(spellings))]
        ids = {image["id"]: int(i) for i, image in enumerate(rng.permuted(coco["images"]))}
        coco["info"], coco["licenses"] = None, [{}]
        for image in coco["images"]:
            image["id"], image["file_name"] = ids[image["id"]], spelling(image["file_name"])
            image["width"] = float(image["width"])
        for number, annotation in enumerate(coco["annotations"], start=1):
            annotation |= {"id": number + 77, "image_id": float(ids[annotation["image_id"]])}
            annotation |= {"iscrowd": False, "segmentation": [], "category_id": 3, "score": None}
            annotation["bbox"] = [float(np.float32(v)) for v in annotation["bbox"]]
        coco["categories"] = [{"id": 3, "name": "Lesion", "supercategory": "x"}]
    assert found(files, table, folder) == {}


def test_a_file_of_all_splits_is_as_good_as_three(sound: Files, table: Path, folder: Path):
    one = {"images": [], "annotations": [], "categories": sound["val"]["categories"]}
    for n, coco in enumerate(copy.deepcopy(sound).values()):
        for image in coco["images"]:
            one["images"].append({**image, "id": image["id"] + 1000 * n})
        for annotation in coco["annotations"]:
            moved = {
                "id": annotation["id"] + 1000 * n,
                "image_id": annotation["image_id"] + 1000 * n,
            }
            one["annotations"].append({**annotation, **moved})
    assert found({"theirs": one}, table, folder) == {}
    audit = audit_coco(written({"theirs": one}, folder), table)
    assert (audit.files[0].split, audit.files[0].told_by) == ("all", "images of several splits")


def test_a_file_of_one_split_is_not_blamed_for_the_others(sound: Files, table: Path, folder: Path):
    theirs = {**copy.deepcopy(sound["val"]), "info": {}}
    for name in ("deeplesion_valid", "theirs"):
        audit = audit_coco(written({name: theirs}, folder), table)
        assert (audit.files[0].split, audit.defects) == ("val", ())
    assert found({"theirs": theirs}, table, folder, splits=["all"]) == {"E-ABSENT": 24}


def test_a_patient_in_two_files_is_a_leak_and_each_image_is_in_the_wrong_one(
    sound: Files, table: Path, folder: Path
):
    files = copy.deepcopy(sound)
    val, test = files["val"], files["test"]
    moved, stays = (
        i for i in val["images"] if i["patient_index"] == val["images"][0]["patient_index"]
    )
    val["images"].remove(moved)
    test["images"].append({**moved, "id": FREE_ID})
    for annotation in [a for a in val["annotations"] if a["image_id"] == moved["id"]]:
        val["annotations"].remove(annotation)
        test["annotations"].append(
            {**annotation, "id": FREE_ID + annotation["id"], "image_id": FREE_ID}
        )
    assert found(files, table, folder) == {"E-WRONGSPLIT": 1, "E-LEAK": 1}
    stays_too = [a for a in val["annotations"] if a["image_id"] != stays["id"]]
    val["images"].remove(stays)
    val["annotations"] = stays_too
    assert found(files, table, folder) == {"E-WRONGSPLIT": 1, "E-ABSENT": 1}


def test_noisy_lesions_that_are_left_out_are_told_apart_from_lost_ones(table: Path, folder: Path):
    lesions = list(read_deeplesion(table).lesions)
    with_noise = folder / "noisy.csv"
    noisy = {0, 4}  # the one lesion of its image, and one of two
    write_deeplesion(
        with_noise,
        [
            lesion if i not in noisy else type(lesion)(**{**vars(lesion), "possibly_noisy": True})
            for i, lesion in enumerate(lesions)
        ],
    )
    kept, dropped = folder / "kept", folder / "dropped"
    convert_deeplesion(with_noise, kept, ConversionConfig())
    convert_deeplesion(with_noise, dropped, ConversionConfig(noisy="drop"))
    assert audit_coco([kept / f"{s}.json" for s in SPLITS], with_noise).defects == ()
    audit = audit_coco([dropped / f"{s}.json" for s in SPLITS], with_noise)
    assert Counter(defect.code for defect in audit.defects) == {"W-NOISY": 2}


def test_a_box_that_the_table_itself_lets_leave_the_image_is_told(folder: Path, table: Path):
    text = table.read_text()
    first = text.splitlines()[1].split('"')
    first[3] = f"-1.5, {', '.join(first[3].split(', ')[1:])}"
    leaving = folder / "leaving.csv"
    leaving.write_text(text.replace(text.splitlines()[1], '"'.join(first)))
    files = converted(leaving)
    assert found(files, leaving, folder) == {}
    split = SPLITS[1]
    (box,) = (a["bbox"] for a in files[split]["annotations"] if a["bbox"][0] == 0)
    box[:] = [-2.5, box[1], box[2] + 2.5, box[3]]
    assert found(files, leaving, folder) == {"E-OUTSIDE": 1}
    box[:] = [box[0] + 1, box[1] + 1, box[2], box[3]]
    assert found(files, leaving, folder) == {"E-SHIFT": 1}


@pytest.mark.parametrize(
    ("rounding", "origin", "codes"),
    [
        (np.round, 0, {"W-ROUNDED"}),
        (np.floor, 0, {"W-ROUNDED"}),
        (np.floor, 1, {"W-ROUNDED", "E-SHIFT"}),
        (np.round, 1, {"W-ROUNDED", "E-SHIFT"}),
    ],
)
def test_the_origin_of_rounded_boxes_is_told_from_the_whole_file(
    rounding, origin: int, codes: set[str], tmp_path: Path
):
    table = small_table(tmp_path / "DL_info.csv", patients=90)
    files = converted(table)
    for coco in files.values():
        for annotation in coco["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = [*rounding([x + origin, y + origin]).tolist(), w, h]
    lesions = sum(len(coco["annotations"]) for coco in files.values())
    assert found(files, table, tmp_path) == dict.fromkeys(codes, lesions)


def test_one_image_a_row_with_ids_from_zero_and_truncated_sides_is_taken_apart(
    tmp_path: Path,
):
    """A loop over the table as public converters have it, mistakes and all."""
    table = small_table(tmp_path / "DL_info.csv", patients=90)
    lesions = read_deeplesion(table).lesions
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "all_type"}]}
    for row, lesion in enumerate(lesions):
        x1, y1, x2, y2 = (v + 1 for v in lesion.box_xyxy)
        w, h, key = int(x2 - x1), int(y2 - y1), lesion.key_slice
        name = key.table_name.replace(".png", ".jpg")
        size = {"width": key.width_px, "height": key.height_px}
        coco["images"].append({"id": row, "file_name": name, **size})
        coco["annotations"].append(
            {"id": row, "image_id": row, "category_id": 1, "iscrowd": 0}
            | {"bbox": [x1, y1, w, h], "area": w * h}
        )
    assert found({"all": coco}, table, tmp_path) == {
        "E-ID0": 1,
        "E-FORMAT": len(lesions),
        "E-DUPIMAGE": len(lesions) - len({le.key_slice for le in lesions}),
        "E-SHIFT": len(lesions),
        "W-ROUNDED": len(lesions),
    }


def test_categories_that_are_coarse_types_are_compared_with_the_table(
    sound: Files, table: Path, folder: Path
):
    files = copy.deepcopy(sound)
    names = ["bone", "abdomen", "Mediastinum", "liver", "lung", "kidney", "soft_tissue", "pelvis"]
    for coco in files.values():
        coco["categories"] = [{"id": 10 + i, "name": name} for i, name in enumerate(names)]
        for annotation in coco["annotations"]:
            annotation["category_id"] = 9 + abs(annotation.pop("lesion_type"))
    untyped = len(files["train"]["annotations"])  # -1 became "bone"
    for annotation in files["train"]["annotations"]:
        annotation["category_id"] = 10
    assert found(files, table, folder) == {"W-UNTYPED": untyped}
    wrong = files["val"]["annotations"][2]
    wrong["category_id"] = 10 + (wrong["category_id"] - 9) % 8
    assert found(files, table, folder) == {"W-UNTYPED": untyped, "E-LESIONTYPE": 1}
    for coco in files.values():
        coco["categories"].append({"id": 0, "name": "__background__"})
    assert found(files, table, folder)["W-BACKGROUND"] == 3


def test_rescaled_images_are_told_with_their_boxes(sound: Files, table: Path, folder: Path):
    files = copy.deepcopy(sound)
    for image in files["val"]["images"]:
        image["width"], image["height"] = image["width"] * 3 // 4, image["height"] // 2
    for annotation in files["val"]["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation["bbox"] = [x * 0.75, y * 0.5, w * 0.75, h * 0.5]
        annotation["area"] = w * h * 0.375
    assert found(files, table, folder) == {
        "E-SIZE": len(files["val"]["images"]),
        "E-SCALED": len(files["val"]["annotations"]),
    }


def test_rows_that_the_table_cannot_say_are_not_judged(sound: Files, table: Path, folder: Path):
    lines = table.read_text().splitlines()
    broken = folder / "broken.csv"
    broken.write_text("\n".join([lines[0], lines[1].replace(", 5", ", NaN"), *lines[2:]]))
    audit = audit_coco(written(sound, folder), broken)
    assert (audit.defects, audit.num_unread) == ((), 1)


def test_slices_missing_on_disk_are_told_with_their_neighbours(
    sound: Files, table: Path, tmp_path: Path
):
    images = tmp_path / "Images_png"
    for coco in sound.values():
        for image in coco["images"]:
            series, name = image["file_name"].split("/")
            (images / series).mkdir(parents=True, exist_ok=True)
            key = int(name.removesuffix(".png"))
            for number in range(key - 2, key + 3):
                size = (image["width"], image["height"]) if number == key else (8, 8)
                (images / series / f"{number:03d}.png").write_bytes(png_bytes(*size))
    assert found(sound, table, tmp_path, images=images) == {}
    series = images / "000002_01_01"
    (series / "019.png").unlink()
    (series / "040.png").write_bytes(png_bytes(512, 512, bits=8))
    (images / "000003_01_01" / "020.png").unlink()
    assert found(sound, table, tmp_path, images=images) == {
        "W-GAP": 1,
        "E-FORMAT": 1,
        "E-MISSING": 1,
    }
    files = copy.deepcopy(sound)
    IN_AN_IMAGE["removed"](files["train"], files["train"]["images"][0])
    assert found(files, table, tmp_path, images=images)["W-ABSENT"] == 1


def test_phantoms_audit_clean(tmp_path: Path):
    for _ in write_phantoms(tmp_path / "phantoms", 3, seed=2, size_px=64):
        pass
    table, images = tmp_path / "phantoms/DL_info.csv", tmp_path / "phantoms/Images_png"
    convert_deeplesion(table, tmp_path / "coco", ConversionConfig(), images)
    audit = audit_coco([tmp_path / f"coco/{s}.json" for s in SPLITS], table, images)
    assert audit.defects == ()


@pytest.mark.real
def test_the_real_table_audits_clean_and_a_planted_one_is_counted(
    real_deeplesion: Path, tmp_path: Path
):
    table = real_deeplesion / "DL_info_available.csv"
    convert_deeplesion(table, tmp_path / "coco", ConversionConfig())
    paths = [tmp_path / f"coco/{split}.json" for split in SPLITS]
    assert audit_coco(paths, table).defects == ()
    val = json.loads(paths[1].read_text())
    for annotation in val["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation |= {"bbox": [x + 1, y + 1, w, h], "area": x * h}
    audit = audit_coco(written({"val": val}, tmp_path), table)
    assert Counter(d.code for d in audit.defects) == {"E-SHIFT": 4_889, "E-AREA": 4_889}
    assert audit.files[0].median_px == (1.0, 1.0, 0.0, 0.0)
