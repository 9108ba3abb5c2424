"""How fast inputs of the detector come from the cache, and phantoms are drawn, on one thread.

    python benchmarks/inputs.py                                       # synthetic slices of 512 px
    python benchmarks/inputs.py --coco val.json --images Images_png/  # your own

Reading is a batch as the training gets it. Decoding is what a training without a cache would do for
the same batch. A GPU that learns from fewer images a second than are read never waits for them.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from table import Row, to_markdown

from lesion_det.batches import BatchSource
from lesion_det.det_config import DetConfig, InputConfig
from lesion_det.ground_truth import ImageRecord, read_ground_truth
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import STORED_ZERO_HU
from ubr_pretrain.phantom import render, sample_scan, sample_subject

ROUNDS, BATCH, MAX_IMAGES = 5, 2, 64
SIDE_PX, NUM_SLICES = 512, 24


def rows() -> list[Row]:
    """Return both, on synthetic slices."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [measure(folder, write_phantoms(folder), folder / "cache"), drawing()]


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


def measure(images: Path, records: Sequence[ImageRecord], cache: Path) -> Row:
    """Return the milliseconds of reading an input against decoding it, the same batches in turn."""
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
    decoded_ms, read_ms = (1e3 * statistics.median(seconds[name]) for name in sources)
    return Row(
        f"an input of {num_bytes / 1e6:.2f} MB from the warm cache, {len(records)} images",
        read_ms,
        decoded_ms,
        "ms an image",
        "decoding its PNGs",
        1.0,
        f"{1e3 / read_ms:.0f} images/s; built at {1e3 * build_s / len(records):.1f} ms an image "
        f"with all cores, checked at {1e3 * verify_s / len(records):.2f} ms",
    )


def drawing() -> Row:
    """Return the milliseconds of a rendered slice at 256 px against 128 px."""
    a_slice_ms = []
    for size_px in (256, 128):
        began_s, count = time.perf_counter(), 0
        for seed in range(3):
            rng = np.random.default_rng(seed)
            subject = sample_subject(rng)
            scan = sample_scan(subject, rng, region="trunk", max_slices=120)
            count += render(subject, scan, size_px=size_px).volume.num_slices
        a_slice_ms.append(1e3 * (time.perf_counter() - began_s) / count)
    note = f"{1e3 / a_slice_ms[0]:.0f} and {1e3 / a_slice_ms[1]:.0f} slices/s"
    what, against = "a phantom's slice of 256 px", "128 px, a quarter of the pixels"
    return Row(what, *a_slice_ms, "ms", against, 4.0, note)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--coco", type=Path, help="default: synthetic slices")
    parser.add_argument("--images", type=Path, help="the folder Images_png, with --coco")
    a = parser.parse_args()
    if not a.coco:
        print(to_markdown(rows()))
        return
    with tempfile.TemporaryDirectory() as name:
        records = [r for r in read_ground_truth(a.coco).images if r.num_lesions][:MAX_IMAGES]
        print(to_markdown([measure(a.images, records, Path(name))]))


if __name__ == "__main__":
    main()
