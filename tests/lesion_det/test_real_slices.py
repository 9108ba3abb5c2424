"""The input from real slices of DeepLesion: boxes that come back, neighbours inside their run."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pandas
import pytest

from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.slices import prepare_image, read_stack
from tests.lesion_det.toy_split import toy_record


def real_records(real_deeplesion: Path) -> list[ImageRecord]:
    table = pandas.read_csv(real_deeplesion / "DL_info_with_pixels.csv")
    records = []
    for name, rows in table.groupby("File_name"):
        boxes = [[float(v) - 1 for v in text.split(",")] for text in rows["Bounding_boxes"]]
        spacing = [float(v) for v in rows["Spacing_mm_px_"].iloc[0].split(",")]
        width, height = (int(v) for v in rows["Image_size"].iloc[0].split(","))
        records.append(
            dataclasses.replace(
                toy_record(1, boxes),
                file_name=f"{name[:-8]}/{name[-7:]}",
                key_slice_index=int(rows["Key_slice_index"].iloc[0]),
                spacing_mm_zyx=(spacing[2], spacing[1], spacing[0]),
                height_px=height,
                width_px=width,
            )
        )
    return records


@pytest.mark.real
@pytest.mark.parametrize(
    "config",
    [
        InputConfig(),
        InputConfig(max_px=160),
        InputConfig(slices="single", pixel_mm=None, max_px=None, clip_border=False),
    ],
    ids=["release", "small", "paper"],
)
def test_real_boxes_lie_inside_their_inputs_and_come_back(
    real_deeplesion: Path, config: InputConfig
) -> None:
    records = real_records(real_deeplesion)
    assert (len(records), sum(r.num_lesions for r in records)) == (50, 51)
    exact, as_float32 = 0.0, 0.0
    for record in records:
        boxes = record.boxes_xyxy
        prepared = prepare_image(real_deeplesion / "Images_png", record, config)
        frame = prepared.frame
        seen = frame.to_input(boxes)
        assert seen.min() > 0
        assert (seen[:, 2:] < [frame.width_px, frame.height_px]).all()
        for x1, y1, x2, y2 in seen.round().astype(int):
            assert prepared.hu[1, y1:y2, x1:x2].mean() > -400  # a lesion is not air
        exact = max(exact, np.abs(frame.to_original(seen) - boxes).max())
        rounded = seen.astype(np.float32).astype(np.float64)  # what a network's boxes hold
        as_float32 = max(as_float32, np.abs(frame.to_original(rounded) - boxes).max())
    print(f"\nback-projected, 51 lesions: {exact:.1e} px exact, {as_float32:.1e} px in float32")
    assert exact < 1e-9
    assert as_float32 < 1e-4


@pytest.mark.real
@pytest.mark.parametrize("missing", [[], [70], [72], [69, 73], [70, 72], [68, 74]])
@pytest.mark.parametrize("interval_mm", [2.0, 5.0, 12.0])
def test_real_neighbours_are_interpolated_in_their_run_and_never_across_a_gap(
    real_deeplesion: Path, tmp_path: Path, missing: list[int], interval_mm: float
) -> None:
    record = next(r for r in real_records(real_deeplesion) if "000062_01_01/071" in r.file_name)
    folder = tmp_path / "000062_01_01"
    folder.mkdir()
    stored = {}
    for path in sorted((real_deeplesion / "Images_png" / "000062_01_01").glob("*.png")):
        if int(path.stem) not in missing:
            (folder / path.name).symlink_to(path)
            stored[int(path.stem)] = (
                cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(float) - 32768
            )
    assert len(stored) == 29 - len(missing)
    step_mm = record.spacing_mm_zyx[0]
    stack = read_stack(tmp_path, record, InputConfig(interval_mm=interval_mm))
    for channel, direction in enumerate((-1, 0, 1)):
        # Walk from the key slice, file by file, until the distance is spent or the run ends.
        at, left_mm = 71, interval_mm * abs(direction)
        while left_mm >= step_mm and at + direction in stored:
            at, left_mm = at + direction, left_mm - step_mm
        wanted = stored[at]
        if 0 < left_mm < step_mm and at + direction in stored:
            wanted = wanted + left_mm / step_mm * (stored[at + direction] - wanted)
        np.testing.assert_allclose(stack[channel], wanted, atol=1e-3)
