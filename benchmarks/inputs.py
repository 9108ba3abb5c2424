"""How fast inputs of the detector come from the cache, against decoding their PNGs, in one run.

    python benchmarks/inputs.py                                       # synthetic slices of 512 px
    python benchmarks/inputs.py --coco val.json --images Images_png/  # your own

Reading is a batch as the training gets it. Decoding is what a training without a cache would do for
the same batch. A GPU that learns from fewer images a second than are read never waits for them. It
writes ``inputs.md`` and ``inputs.json`` beside itself, or into ``--out``.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from lesion_det.batches import BatchSource
from lesion_det.det_config import DetConfig, InputConfig
from lesion_det.ground_truth import ImageRecord, read_ground_truth
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import STORED_ZERO_HU
from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.runtime import describe_machine

ROUNDS, BATCH, MAX_IMAGES = 5, 2, 64
SIDE_PX, NUM_SLICES = 512, 24


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--coco", type=Path, help="default: synthetic slices")
    parser.add_argument("--images", type=Path, help="the folder Images_png, with --coco")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if a.coco:
            records = [r for r in read_ground_truth(a.coco).images if r.num_lesions][:MAX_IMAGES]
            result = measure(a.images, records, folder / "cache")
        else:
            result = measure(folder, write_phantoms(folder), folder / "cache")
    text = to_markdown(result)
    with write_atomically(a.out / "inputs.md", "w") as file:
        file.write(text)
    with write_atomically(a.out / "inputs.json", "w") as file:
        file.write(json.dumps(result, indent=1) + "\n")
    print(text)


def write_phantoms(images: Path, num_slices: int = NUM_SLICES) -> list[ImageRecord]:
    """Write one synthetic scan as a folder of PNGs; every inner slice is a key slice."""
    rng = np.random.default_rng(0)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="trunk", max_slices=num_slices)
    volume = render(subject, scan, size_px=SIDE_PX).volume
    (images / "000001_01_01").mkdir(parents=True)
    for number, hu in enumerate(volume.hu, start=1):
        stored = (hu.astype(np.int32) + STORED_ZERO_HU).astype(np.uint16)
        assert cv2.imwrite(str(images / "000001_01_01" / f"{number:03d}.png"), stored)
    first = ImageRecord(
        id=1,
        file_name="000001_01_01/002.png",
        height_px=SIDE_PX,
        width_px=SIDE_PX,
        patient_index=1,
        study_index=1,
        series_id=1,
        key_slice_index=2,
        slice_range=(1, volume.num_slices),
        spacing_mm_zyx=volume.spacing_mm_zyx,
        boxes_xyxy=np.array([[240.0, 240.0, 270.0, 262.0]]),
        annotation_ids=np.array([1]),
        lesion_types=np.array([-1]),
        diameters_px=np.array([[30.0, 22.0]]),
        possibly_noisy=np.array([False]),
    )
    return [
        replace(first, id=k, file_name=f"000001_01_01/{k:03d}.png", key_slice_index=k)
        for k in range(2, volume.num_slices)
    ]


def measure(images: Path, records: Sequence[ImageRecord], cache: Path) -> dict[str, Any]:
    """Return seconds and rates of decoding and reading the same batches, in turn."""
    config = DetConfig(coco=Path("unused"), batch=BATCH)
    stored = PreparedImages(images, InputConfig(), cache)
    began_s = time.perf_counter()
    stored.build(records)
    build_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    stored.build(records)
    verify_s = time.perf_counter() - began_s
    sources = {
        "decoding": BatchSource(records, PreparedImages(images, InputConfig()), config),
        "reading": BatchSource(records, stored, config),
    }
    iterations = range(1, len(records) // BATCH + 1)
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    num_bytes = 0
    for _ in range(ROUNDS):
        for name, source in sources.items():
            began_s = time.perf_counter()
            batches = [e for _, b in source.batches(iterations, range(BATCH), 0) for e in b]
            seconds[name].append((time.perf_counter() - began_s) / len(batches))
            num_bytes = sum(e.hu.nbytes for e in batches) // len(batches)
    decoding, reading = (statistics.median(seconds[name]) for name in sources)
    return {
        "images": len(records),
        "mean_bytes": num_bytes,
        "decoding_images_per_s": 1 / decoding,
        "reading_images_per_s": 1 / reading,
        "decoding_mb_per_s": num_bytes / decoding / 1e6,
        "reading_mb_per_s": num_bytes / reading / 1e6,
        "ratio": decoding / reading,
        "build_images_per_s": len(records) / build_s,
        "verify_images_per_s": len(records) / verify_s,
        "machine": describe_machine(torch.device("cpu")),
    }


def to_markdown(result: dict[str, Any]) -> str:
    """Return the rates as a table."""
    r = result
    lines = [
        "| inputs, one thread, no GPU | images a second | MB a second |",
        "|---|---|---|",
        f"| decoding its PNGs | {r['decoding_images_per_s']:.0f} | {r['decoding_mb_per_s']:.0f} |",
        f"| from the warm cache | {r['reading_images_per_s']:.0f} | {r['reading_mb_per_s']:.0f} |",
        "",
        f"The cache is {r['ratio']:.0f} times as fast: {r['images']} inputs of "
        f"{r['mean_bytes'] / 1e6:.2f} MB. Building it took {1e3 / r['build_images_per_s']:.1f} ms "
        f"an image with all cores, checking it {1e3 / r['verify_images_per_s']:.2f} ms. A GPU that "
        f"learns from fewer than {r['reading_images_per_s']:.0f} images a second never waits.",
        "",
        f"torch {r['machine']['packages']['torch']}, {r['machine']['platform']}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    main()
