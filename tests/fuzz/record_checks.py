"""How records are read by the commands, and what a plain parse of the same files says of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from converters.coco import read_coco
from converters.deeplesion import read_deeplesion
from converters.deeplesion_row import MAX_OUTSIDE_PX
from converters.foreign_coco import read_foreign_coco
from lesion_det.ground_truth import read_ground_truth
from lesion_det.predictions import read_coco_results, read_predictions
from ubr_pretrain.anchors import read_anchors
from ubr_pretrain.calibration import read_calibration
from ubr_pretrain.config import config_parser, parse_config, read_config
from ubr_pretrain.landmarks import read_landmarks
from ubr_pretrain.place_slices import place_slices
from ubr_pretrain.slice_classes import read_slice_classes
from ubr_pretrain.ubr_config import Losses, UbrConfig

SPELLINGS: Mapping[bool | None, tuple[str, ...]] = {
    True: ("true", "1", "1.0", "yes", "on", "y", "t"),
    False: ("false", "0", "0.0", "-0.0", "no", "off", "n", "f"),
    None: ("none", "null", ""),
}


@dataclass(frozen=True)
class RecordFormat:
    """How a record is read, and how a plain parse of the same files judges the result."""

    read: Callable[[Path], Any]
    check: Callable[[Path, Any], str]


def same(plain: Any, ours: Any) -> bool:
    """Whether a value of ours is the plain one, up to the type that it was given."""
    if isinstance(ours, Mapping):
        return isinstance(plain, dict) and all(
            same(plain[k], v) for k, v in ours.items() if k in plain
        )
    if isinstance(ours, list | tuple):
        return isinstance(plain, list) and len(plain) == len(ours) and all(map(same, plain, ours))
    if isinstance(ours, bool) or ours is None:
        return str(plain).lower() in SPELLINGS[ours]
    if isinstance(ours, int | float):
        if isinstance(plain, int | float) and plain == ours:
            return True
        with suppress(ValueError, TypeError, OverflowError):
            return math.isclose(float(plain), ours, rel_tol=1e-12)
        return False
    return str(plain) == str(ours)


def _rows(path: Path) -> list[list[str]]:
    text = re.sub(r"\r\n?", "\n", path.read_bytes().decode("utf-8-sig"))
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]


def _columns(rows: list[list[str]]) -> dict[str, int]:
    """Return where the columns are, the first of each name."""
    return {name.strip(): n for n, name in reversed([*enumerate(rows[0])])}


def _check_deeplesion(path: Path, table: Any) -> str:
    rows = _rows(path)
    at = _columns(rows)
    if len(rows) - 1 != len(table.lesions) + len(table.refused):
        return f"{len(rows) - 1} rows, {len(table.lesions)} read and {len(table.refused)} refused"
    plain = {}
    for row in rows[1:]:
        if len(row) == len(rows[0]):
            plain.setdefault(row[at["File_name"]].strip().replace("/", "_"), []).append(row)
    for lesion in table.lesions:
        key = lesion.key_slice
        fits = [
            row
            for row in plain.get(key.table_name, [])
            if _near(row[at["Bounding_boxes"]], [v + 1 for v in lesion.box_xyxy], MAX_OUTSIDE_PX)
            and _near(row[at["Spacing_mm_px_"]], key.spacing_mm_zyx[::-1])
            and _near(row[at["Image_size"]], (key.width_px, key.height_px))
            and _near(row[at["Patient_index"]], [key.patient_index])
            and _near(row[at["Coarse_lesion_type"]], [lesion.lesion_type])
            and _near(row[at["Measurement_coordinates"]], [v + 1 for v in lesion.measurement_xy])
            and _near(row[at["Lesion_diameters_Pixel_"]], lesion.diameters_px)
        ]
        if not fits:
            return f"no row says {lesion}"
    return ""


def _near(cell: str, numbers: Any, within: float = 1e-3) -> bool:
    try:
        words = [float(word.strip()) for word in cell.split(",")]
    except ValueError:
        return False
    return len(words) == len(numbers) and all(
        abs(word - number) <= within for word, number in zip(words, numbers, strict=True)
    )


def _check_model(path: Path, model: Any) -> str:
    plain = json.loads(path.read_text("utf-8-sig"))
    return "" if same(plain, model.model_dump(mode="json")) else "other values than the JSON"


def _check_foreign(path: Path, coco: Any) -> str:
    plain = json.loads(path.read_text("utf-8-sig"))
    for key in ("images", "annotations"):
        sound = sum(isinstance(each, dict) for each in plain[key])
        if sound != len(getattr(coco, key)):
            return f"{len(getattr(coco, key))} of {sound} {key}"
    return ""


def _check_truth(path: Path, truth: Any) -> str:
    plain = json.loads(path.read_text("utf-8"))
    boxes = sorted(tuple(map(float, a["bbox"])) for a in plain["annotations"])
    ours = sorted(
        (float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1]))
        for image in truth.images
        for b in image.boxes_xyxy
    )
    return (
        ""
        if np.allclose(boxes, ours, atol=1e-6) and len(truth.images) == len(plain["images"])
        else "other boxes than the JSON"
    )


def _check_predictions(path: Path, predictions: Any) -> str:
    plain = json.loads(path.read_text("utf-8"))
    for image in plain["images"]:
        number = image["image_id"]
        order = np.argsort(predictions.scores[number])
        other = np.argsort(image["scores"])
        boxes = np.array(image["boxes_xyxy"], float).reshape(-1, 4)
        if not np.array_equal(
            np.sort(predictions.scores[number]), np.sort(image["scores"])
        ) or not (len(set(image["scores"])) < len(order) or np.array_equal(
            predictions.boxes_xyxy[number][order], boxes[other]
        )):  # fmt: skip
            return f"other boxes of image {number}"
    return ""


def _read_results(path: Path) -> Any:
    return read_coco_results(path, read_ground_truth(path.with_name("truth.json")))


def _check_results(path: Path, predictions: Any) -> str:
    plain = json.loads(path.read_text("utf-8"))
    scores = np.sort([float(each["score"]) for each in plain])
    ours = np.sort(np.concatenate([*predictions.scores.values(), np.empty(0)]))
    return "" if np.array_equal(scores, ours) else "other scores than the JSON"


def _check_config(path: Path, config: Any) -> str:
    plain = yaml.safe_load(path.read_text("utf-8")) or {}
    ours = config.model_dump(mode="json")
    missing = set(plain) - set(ours)
    return f"{missing} passed over" if missing else ("" if same(plain, ours) else "other values")


def _read_cli(path: Path) -> Any:
    errors = io.StringIO()
    try:
        words = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path}: not a command line")
    parser = config_parser(UbrConfig, "train_ubr.py", "x", "ubr")
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            return parse_config(parser, UbrConfig, words, "ubr")[0]
        except SystemExit as exit_:
            if exit_.code not in (0, 2):
                raise RuntimeError(f"exit code {exit_.code}") from exit_
            raise ValueError(f"{path.name} {errors.getvalue().strip()}"[:1500]) from exit_


def nothing(path: Path, result: Any) -> str:
    """Leave unjudged what a plain parse has no words for: that it was read or refused is all."""
    return ""


def _check_landmarks(path: Path, marks: Any) -> str:
    rows = _rows(path)
    at = _columns(rows)
    plain = [
        (row[at["volume"]], row[at["landmark"]], float(row[at["index_sup_to_inf"]]))
        for row in rows[1:]
    ]
    ours = [(m.volume, m.landmark, float(m.index)) for m in marks]
    return "" if plain == ours else f"{ours} read of {plain}"


Z_MM = {"a": [5.0 * k for k in range(40)], "b": [5.0 * k for k in range(30)]}


def _read_anchors(path: Path) -> Any:
    return read_anchors([path], Z_MM)


def _check_anchors(path: Path, known: Any) -> str:
    rows = _rows(path)
    at = _columns(rows)
    if "landmark" in at:
        return ""
    for row in rows[1:]:
        name, index = row[at["volume"]], float(row[at["index_sup_to_inf"]])
        if name in Z_MM and float(row[at["coordinate_mm"]]) != known[name][int(index)]:
            return f"slice {index} of {name}"
        if name in Z_MM and index != int(index):
            return f"slice {index} is none"
    return ""


def _check_classes(path: Path, table: Any) -> str:
    rows = _rows(path)
    at = _columns(rows)
    plain = [(r[at["volume"]], int(r[at["index_sup_to_inf"]]), r[at["class"]]) for r in rows[1:]]
    ours = list(zip(table["volume"], table["index_sup_to_inf"], table["class"], strict=True))
    return "" if plain == ours else "other rows than the table"


def _check_calibration(path: Path, calibration: Any) -> str:
    return "" if same(json.loads(path.read_bytes()), asdict(calibration)) else "other values"


def _place(path: Path) -> Any:
    out = path.with_name("placed.csv")
    with redirect_stdout(io.StringIO()):
        place_slices(path.parent, out, Losses())
    return _rows(out)


TABLES: dict[str, tuple[str, RecordFormat]] = {
    "dl-info": ("DL_info.csv", RecordFormat(read_deeplesion, _check_deeplesion)),
    "coco": ("coco.json", RecordFormat(read_coco, _check_model)),
    "coco-truth": ("truth.json", RecordFormat(read_ground_truth, _check_truth)),
    "coco-foreign": ("foreign.json", RecordFormat(read_foreign_coco, _check_foreign)),
    "predictions": ("predictions.json", RecordFormat(read_predictions, _check_predictions)),
    "coco-results": ("results.json", RecordFormat(_read_results, _check_results)),
    "config": ("c.yaml", RecordFormat(lambda p: read_config(p, UbrConfig), _check_config)),
    "command-line": ("argv.json", RecordFormat(_read_cli, nothing)),
    "landmarks": ("landmarks.csv", RecordFormat(read_landmarks, _check_landmarks)),
    "anchors": ("anchors.csv", RecordFormat(_read_anchors, _check_anchors)),
    "slice-classes": (
        "classes.csv",
        RecordFormat(lambda p: read_slice_classes([p]), _check_classes),
    ),
    "score-table": ("scores.csv", RecordFormat(_place, nothing)),
    "calibration": ("calibration.json", RecordFormat(read_calibration, _check_calibration)),
}
"""By kind: the file that is read, and how."""
