"""Sound records: small, and of every kind that the commands read."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lesion_det.predictions import Predictions, write_predictions
from tests.fuzz.originals import Files
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.slice_files import SliceFiles
from ubr_pretrain.ubr_config import Losses

SCORE_PER_MM = Losses().score_per_mm
GOLDEN = Path(__file__).resolve().parents[1] / "converters" / "golden"

STATE: dict[str, Any] = {
    "config": {"lr": 0.1, "names": ["a", "b"], "on": True, "none": None},
    "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)},
    "iteration": 12,
}


def deeplesion() -> Files:
    """Return the golden table."""
    return {"DL_info.csv": (GOLDEN / "DL_info.csv").read_bytes()}


def golden(name: str) -> Callable[[], Files]:
    """Return a maker of one of the golden COCO files, under another name."""
    return lambda: {name: (GOLDEN / "train.json").read_bytes()}


def predictions() -> Files:
    """Return predictions of two images."""
    boxes = {1: np.array([[1.0, 2, 30, 40], [5, 6, 70, 80]]), 2: np.empty((0, 4))}
    scores = {1: np.array([0.9, 0.25]), 2: np.empty(0)}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "predictions.json"
        write_predictions(path, Predictions("ab" * 32, boxes, scores))
        return {path.name: path.read_bytes()}


def coco_results() -> Files:
    """Return a result list, and the ground truth that it is of."""
    truth = (GOLDEN / "train.json").read_bytes()
    ids = [image["id"] for image in json.loads(truth)["images"]]
    results = [
        {"image_id": i, "category_id": 1, "bbox": [1.0, 2.0, 30.5, 40.0], "score": 0.1 * k + 0.05}
        for k, i in enumerate(ids)
    ]
    return {"results.json": json.dumps(results).encode(), "truth.json": truth}


def config() -> Files:
    """Return a preset."""
    text = """\
width: 0.25
batch_norm: true
head_std: null
input: {std: [64.0, 64.0, 64.0], fov_mm: 512.0, size_px: 48}
g: 6
m: 8
min_interval_mm: 6.0
losses: {reduction: mean}
augmentation: {scale: 0.1, shift: 0.04, rotate_deg: 4.0, flip: 0.5, contrast: 0.05}
optimiser: {name: adamw, lr: 0.001, weight_decay: 0.01, schedule: cosine, warmup: 20}
iterations: 500
seed: 3
"""
    return {"c.yaml": text.encode()}


def command_line() -> Files:
    """Return the words of a command."""
    words = ["--preset", "demo", "--optimiser.lr", "0.1",
             "--input.window.lower_hu", "-100", "--g=4", "--batch_norm", "true"]  # fmt: skip
    return {"argv.json": json.dumps(words).encode()}


def checkpoint() -> Files:
    """Return a checkpoint of ours."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "last.safetensors"
        write_checkpoint(path, STATE, "ubr")
        return {path.name: path.read_bytes()}


def safetensors() -> Files:
    """Return weights of a stranger."""
    from safetensors.torch import save

    tensors = {"features.0.weight": torch.ones(4, 3, 3, 3), "features.0.bias": torch.zeros(4)}
    return {"w.safetensors": save(tensors, {"format": "pt", "note": "x"})}


def torch_file() -> Files:
    """Return what ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save({"state_dict": {"w": torch.arange(40.0)}, "epoch": 3, "name": "x"}, stream)
    return {"w.pth": stream.getvalue()}


def plain_pickle() -> Files:
    """Return arrays in a dictionary, as Detectron2's files have them."""
    return {"w.pkl": pickle.dumps({"model": {"w": np.arange(12.0)}, "__author__": "x"})}


def hub_folder() -> Files:
    """Return weights and a ``config.json`` that describes them."""
    weights = safetensors()["w.safetensors"]
    about = {"sha256": hashlib.sha256(weights).hexdigest(), "provenance": {"init": "ubr"},
             "kind": "backbone", "format": 1, "input": {"mean": [0.0, 0.0, 0.0]}}  # fmt: skip
    config = {"architecture": "vgg16", "num_classes": 0, "about": about}
    return {"model.safetensors": weights, "config.json": json.dumps(config).encode()}


def store() -> Files:
    """Return one volume of a slice store."""
    with tempfile.TemporaryDirectory() as name:
        files = SliceFiles(Path(name) / "a.npy")
        record = {"name": "a", "subject": "a", "num_slices": 3, "step_mm": 5.0,
                  "z_mm": [0.0, 5.0, 10.0], "notes": ["x"]}  # fmt: skip
        files.write(np.arange(3 * 32 * 32, dtype=np.int16).reshape(3, 32, 32), record)
        return {file.name: file.read_bytes() for file in Path(name).iterdir()}


def score_journal() -> Files:
    """Return a journal of scores."""
    lines: list[dict[str, Any]] = [{"schema_version": 0, "weights": "a"}]
    from ubr_pretrain.score_archive import SCHEMA_VERSION, to_line

    lines[0]["schema_version"] = SCHEMA_VERSION
    for n, name in enumerate(("a", "b", "a")):
        record = {"volume": name, "subject": name, "scores": [1.0, 0.5, n]}
        lines.append(
            {"kind": "volumes", "name": name, "place": "p", "content": "c", "record": record}
        )
    return {"scores.jsonl": b"".join(to_line(line) for line in lines)}


def metrics() -> Files:
    """Return a journal of training."""
    lines = [{"iteration": n, "kind": "train", "loss": 1.0 / (n + 1)} for n in range(4)]
    return {"metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode()}


def landmarks() -> Files:
    """Return marks in two volumes."""
    text = (
        "volume,landmark,index_sup_to_inf,uncertainty_slices\n"
        "a,carina,3,1\na,liver_dome,12,1\na,iliac_crest,30,2\nb,lung_base,4,1\nb,iliac_crest,20,1\n"
    )
    return {"landmarks.csv": text.encode()}


def anchors() -> Files:
    """Return places of slices."""
    rows = "".join(f"a,{k},{100 - 5.5 * k}\n" for k in range(6)) + "c,1,3\n"
    return {"anchors.csv": f"volume,index_sup_to_inf,coordinate_mm\n{rows}".encode()}


def slice_classes() -> Files:
    """Return classes of slices."""
    rows = "".join(f"a,{k},{'chest' if k < 3 else 'abdomen'}\n" for k in range(6))
    return {"classes.csv": f"volume,index_sup_to_inf,class\n{rows}".encode()}


def score_table() -> Files:
    """Return scores of two volumes."""
    rows = "".join(
        f"{name},{k},{5 * k},{SCORE_PER_MM * 5 * k + 0.001 * (k % 3):.6f}\n"
        for name in "ab"
        for k in range(40)
    )
    return {"scores.csv": f"volume,slice_index,z_mm,score\n{rows}".encode()}


def calibration() -> Files:
    """Return the calibration that is part of the package."""
    import ubr_pretrain

    path = Path(ubr_pretrain.__file__).parent / "weights" / "calibration.json"
    return {"calibration.json": path.read_bytes()}


def picture(form: str) -> Callable[[], Files]:
    """Return a maker of an 8-bit picture: a body in air, with metadata on which readers act."""

    def make() -> Files:
        y, x = np.mgrid[-1:1:24j, -1:1:20j]
        grey = np.where(x**2 + y**2 < 0.8, 90 + 60 * x * y, 0).astype(np.uint8)
        about = Image.Exif()
        about[0x112], about[0x10E] = 6, "turned"
        stream = io.BytesIO()
        more = {"exif": about} if form == "jpg" else {"dpi": (300, 300)}
        Image.fromarray(grey).save(stream, {"jpg": "JPEG", "png": "PNG"}[form], **more)
        return {f"slice.{form}": stream.getvalue()}

    return make


ORIGINALS: dict[str, Callable[[], Files]] = {
    "dl-info": deeplesion,
    "coco": golden("coco.json"),
    "coco-truth": golden("truth.json"),
    "coco-foreign": golden("foreign.json"),
    "predictions": predictions,
    "coco-results": coco_results,
    "config": config,
    "command-line": command_line,
    "checkpoint": checkpoint,
    "safetensors": safetensors,
    "torch-file": torch_file,
    "pickle": plain_pickle,
    "hub-folder": hub_folder,
    "store": store,
    "score-journal": score_journal,
    "metrics": metrics,
    "landmarks": landmarks,
    "anchors": anchors,
    "slice-classes": slice_classes,
    "score-table": score_table,
    "calibration": calibration,
    "picture-png": picture("png"),
    "picture-jpeg": picture("jpg"),
}
"""By kind: makes the sound files."""
