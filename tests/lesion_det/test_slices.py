"""What the detector reads, from 16-bit slices."""

import dataclasses
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import GroundTruthRefused, ImageRecord, read_ground_truth
from lesion_det.slices import (
    BORDER_MARGIN_PX,
    prepare_image,
    read_slice,
    read_stack,
    require_files,
)
from tests.lesion_det.toy_slices import AIR_HU, body_slice, write_png
from tests.lesion_det.toy_split import toy_coco, toy_record
from ubr_pretrain.ct import IMAGENET_INPUT
from ubr_pretrain.network_input import normalise


def record_of(
    key: int, size: tuple[int, int], step_mm: float = 5.0, pixel_mm: float = 0.8
) -> ImageRecord:
    return dataclasses.replace(
        toy_record(1, [(40, 30, 52, 44)]),
        file_name=f"000001_01_01/{key:03d}.png",
        key_slice_index=key,
        height_px=size[0],
        width_px=size[1],
        spacing_mm_zyx=(step_mm, pixel_mm, pixel_mm),
    )


def write_flat_slices(images: Path, values: dict[int, int]) -> None:
    for index, hu in values.items():
        write_png(images / "000001_01_01" / f"{index:03d}.png", np.full((8, 9), hu, np.int16))


class TestReadingASlice:
    def test_hu_is_the_stored_value_minus_32768(self, tmp_path: Path) -> None:
        hu = np.array([[-2048, -1024, 0], [40, 1000, 3071]], np.int16)
        write_png(tmp_path / "a.png", hu)
        np.testing.assert_array_equal(read_slice(tmp_path / "a.png"), hu)

    @pytest.mark.parametrize(
        ("stored", "said"),
        [
            (np.zeros((4, 4), np.uint8), r"E-FORMAT .*a\.png .*has 8 bits"),
            (np.zeros((4, 4, 3), np.uint16), r"E-RGB .*a\.png .*not 16-bit grey"),
        ],
    )
    def test_anything_but_16_bit_grey_is_refused(
        self, tmp_path: Path, stored: np.ndarray, said: str
    ) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), stored)
        with pytest.raises(ValueError, match=said):
            read_slice(tmp_path / "a.png")

    def test_a_missing_or_damaged_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a\.png: no such slice"):
            read_slice(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes(b"<html>not found</html>")
        with pytest.raises(ValueError, match=r"E-FORMAT .*a\.png .*web page"):
            read_slice(tmp_path / "a.png")

    def test_a_slice_of_another_size_than_stated_is_refused(self, tmp_path: Path) -> None:
        write_flat_slices(tmp_path, {10: 0})
        with pytest.raises(ValueError, match=r"010\.png: 9x8 px, the ground truth says 512x512"):
            read_stack(tmp_path, record_of(10, (512, 512)), InputConfig())

    def test_a_file_that_is_not_the_key_slice_is_refused(self, tmp_path: Path) -> None:
        record = dataclasses.replace(record_of(10, (8, 9)), key_slice_index=11)
        with pytest.raises(ValueError, match=r"010\.png: the ground truth says key slice 11"):
            read_stack(tmp_path, record, InputConfig())


class TestThreeSlices:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(
        present=st.sets(st.integers(1, 30), max_size=25),
        step_mm=st.sampled_from([0.25, 0.5, 0.7, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0]),
        interval_mm=st.sampled_from([1.0, 2.0, 3.0]),
    )
    def test_interpolation_stays_inside_the_run_of_the_key_slice(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        present: set[int],
        step_mm: float,
        interval_mm: float,
    ) -> None:
        images, key = tmp_path_factory.mktemp("slices"), 15
        values = {i: 7 * i * i - 300 * i for i in present | {key}}
        write_flat_slices(images, values)
        # The oracle walks the run and lets np.interp, which repeats its ends, do the rest.
        first = last = key
        while first - 1 in values:
            first -= 1
        while last + 1 in values:
            last += 1
        run = list(range(first, last + 1))
        wanted = [
            np.interp(key + mm / step_mm, run, [values[i] for i in run])
            for mm in (-interval_mm, 0, interval_mm)
        ]
        config = InputConfig(interval_mm=interval_mm)
        stack = read_stack(images, record_of(key, (8, 9), step_mm), config)
        assert stack.shape == (3, 8, 9)
        np.testing.assert_allclose(stack[:, 0, 0], wanted, atol=0.01)
        assert np.ptp(stack, axis=(1, 2)).max() == 0

    def test_the_first_channel_is_the_superior_one(self, tmp_path: Path) -> None:
        write_flat_slices(tmp_path, {9: -100, 10: 0, 11: 100})
        stack = read_stack(tmp_path, record_of(10, (8, 9), step_mm=2.0), InputConfig())
        assert stack[:, 0, 0].tolist() == [-100, 0, 100]

    def test_single_repeats_the_key_slice_and_reads_no_other(self, tmp_path: Path) -> None:
        write_flat_slices(tmp_path, {9: -100, 10: 5, 11: 100})
        stack = read_stack(tmp_path, record_of(10, (8, 9)), InputConfig(slices="single"))
        assert stack[:, 0, 0].tolist() == [5, 5, 5]


def area_weights(kept: int, size: int) -> np.ndarray:
    """Row i: how much of output pixel i each input pixel covers."""
    weights = np.zeros((size, kept))
    for i in range(size):
        start, end = i * kept / size, (i + 1) * kept / size
        for j in range(kept):
            weights[i, j] = max(0.0, min(end, j + 1) - max(start, j))
    return weights / weights.sum(axis=1, keepdims=True)


class TestPreparedInput:
    def test_it_equals_an_independent_computation_from_the_files(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        slices = {}
        for index in (9, 10, 11):
            hu = body_slice(120, 150, (40, 30, 52, 44))
            hu[hu > 0] += rng.integers(-60, 60, (hu > 0).sum()).astype(np.int16)
            slices[index] = hu.astype(np.float64)
            write_png(tmp_path / "000001_01_01" / f"{index:03d}.png", hu)
        record = record_of(10, (120, 150), step_mm=5.0, pixel_mm=0.5)
        prepared = prepare_image(tmp_path, record, InputConfig())

        stack = [0.6 * slices[10] + 0.4 * slices[i] for i in (9, 10, 11)]
        stack[1] = slices[10]
        rows = [i for i in range(120) if max(s[i].max() for s in stack) > -175]
        columns = [i for i in range(150) if max(s[:, i].max() for s in stack) > -175]
        top, bottom = rows[0] - BORDER_MARGIN_PX, rows[-1] + 1 + BORDER_MARGIN_PX
        left, right = columns[0] - BORDER_MARGIN_PX, columns[-1] + 1 + BORDER_MARGIN_PX
        height, width = round((bottom - top) * 0.5 / 0.8), round((right - left) * 0.5 / 0.8)
        wanted = [
            area_weights(bottom - top, height)
            @ s[top:bottom, left:right]
            @ area_weights(right - left, width).T
            for s in stack
        ]
        assert prepared.hu.dtype == np.int16
        np.testing.assert_allclose(prepared.hu, wanted, atol=0.51)

        spec = IMAGENET_INPUT
        grey = np.clip((prepared.hu - -175.0) / 450.0, 0, 1)
        seen = (grey - np.reshape(spec.mean, (3, 1, 1))) / np.reshape(spec.std, (3, 1, 1))
        network = normalise(torch.from_numpy(prepared.hu).float()[None], spec)[0]
        np.testing.assert_allclose(network.numpy(), seen, atol=1e-5)

    @pytest.mark.parametrize("size", [(80, 80), (512, 512), (768, 768), (300, 500)])
    @pytest.mark.parametrize("max_px", [64, 512])
    def test_the_boxes_follow_the_lesion(
        self, tmp_path: Path, size: tuple[int, int], max_px: int
    ) -> None:
        box = (size[1] // 2, size[0] // 3, size[1] // 2 + 30, size[0] // 3 + 24)
        write_png(tmp_path / "000001_01_01" / "010.png", body_slice(*size, box))
        record = dataclasses.replace(
            record_of(10, size, pixel_mm=0.7), boxes_xyxy=np.array([box], np.float64)
        )
        prepared = prepare_image(tmp_path, record, InputConfig(max_px=max_px))
        assert prepared.hu.shape == (3, prepared.frame.height_px, prepared.frame.width_px)
        assert max(prepared.hu.shape) <= max_px
        rows, columns = np.nonzero(prepared.hu[1] > 130)  # more lesion than body
        outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        seen = prepared.frame.to_input(record.boxes_xyxy)[0]
        np.testing.assert_allclose(seen, outline, atol=0.51)

    def test_the_frame_does_not_know_where_the_lesions_are(self, tmp_path: Path) -> None:
        write_png(tmp_path / "000001_01_01" / "010.png", body_slice(90, 90, (40, 40, 50, 50)))
        record = record_of(10, (90, 90))
        blind = dataclasses.replace(record, boxes_xyxy=np.empty((0, 4)))
        frame = prepare_image(tmp_path, record, InputConfig()).frame
        assert frame == prepare_image(tmp_path, blind, InputConfig()).frame
        assert frame.left_px == 9 - BORDER_MARGIN_PX
        assert frame.kept_width_px == 72 + 2 * BORDER_MARGIN_PX

    def test_an_image_without_a_body_is_kept_whole(self, tmp_path: Path) -> None:
        write_png(tmp_path / "000001_01_01" / "010.png", np.full((50, 60), AIR_HU, np.int16))
        frame = prepare_image(tmp_path, record_of(10, (50, 60)), InputConfig()).frame
        assert (frame.left_px, frame.top_px) == (0, 0)
        assert (frame.kept_width_px, frame.kept_height_px) == (60, 50)


class TestMissingFiles:
    def test_missing_key_slices_are_counted_before_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"2 key slices are missing, first 000001_01_01/010"):
            require_files(tmp_path, [record_of(10, (8, 9)), record_of(11, (8, 9))])

    @pytest.mark.parametrize("name", ["../000001_01_01/010.png", "/etc/010.png"])
    def test_L12_a_name_that_leaves_the_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        """A name of the ground truth that leads out of the images is refused before any is read."""
        record = dataclasses.replace(record_of(10, (8, 9)), file_name=name)
        with pytest.raises(ValueError, match="leaves the folder of images"):
            require_files(tmp_path, [record])


class TestReadingsOfTheInput:
    def test_as_stored_means_the_very_pixels(self, tmp_path: Path) -> None:
        hu = np.random.default_rng(0).integers(-1024, 3071, (1024, 700)).astype(np.int16)
        write_png(tmp_path / "000001_01_01" / "010.png", hu)
        stored = InputConfig(slices="single", pixel_mm=None, max_px=None, clip_border=False)
        prepared = prepare_image(tmp_path, record_of(10, hu.shape), stored)  # type: ignore[arg-type]
        np.testing.assert_array_equal(prepared.hu, [hu, hu, hu])
        box = np.array([[3.25, 4.5, 699.0, 1023.75]])
        np.testing.assert_array_equal(prepared.frame.to_input(box), box)
        np.testing.assert_array_equal(prepared.frame.to_original(box), box)

    def test_each_part_of_the_pipeline_can_be_left_out(self, tmp_path: Path) -> None:
        write_png(tmp_path / "000001_01_01" / "010.png", body_slice(200, 300, (140, 90, 160, 104)))
        record = record_of(10, (200, 300), pixel_mm=0.4)
        sizes = {
            (clip, pixel_mm, max_px): prepare_image(
                tmp_path,
                record,
                InputConfig(clip_border=clip, pixel_mm=pixel_mm, max_px=max_px),
            ).hu.shape[1:]
            for clip in (False, True)
            for pixel_mm in (None, 0.8)
            for max_px in (None, 64)
        }
        assert sizes == {
            (False, None, None): (200, 300),
            (False, None, 64): (43, 64),
            (False, 0.8, None): (100, 150),
            (False, 0.8, 64): (43, 64),
            (True, None, None): (176, 256),
            (True, None, 64): (44, 64),
            (True, 0.8, None): (88, 128),
            (True, 0.8, 64): (44, 64),
        }

    @pytest.mark.parametrize("spacing_yx", [(0.5, 1.0), (1.2, 0.6), (0.8, 0.4)])
    def test_pixels_that_are_not_square_become_square(
        self, tmp_path: Path, spacing_yx: tuple[float, float]
    ) -> None:
        box = (70, 60, 100, 90)
        write_png(tmp_path / "000001_01_01" / "010.png", body_slice(160, 180, box))
        record = dataclasses.replace(record_of(10, (160, 180)), spacing_mm_zyx=(5.0, *spacing_yx))
        prepared = prepare_image(tmp_path, record, InputConfig())
        seen = prepared.frame.to_input(np.array([box], np.float64))[0]
        millimetres = [30 * spacing_yx[1], 30 * spacing_yx[0]]
        np.testing.assert_allclose(0.8 * (seen[2:] - seen[:2]), millimetres, rtol=0.02)
        rows, columns = np.nonzero(prepared.hu[1] > 130)
        outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(seen, outline, atol=1.0)


class TestSliceInterval:
    @pytest.mark.parametrize("interval_mm", [math.nan, -5.0, 0.0, math.inf])
    def test_an_interval_that_is_no_distance_is_refused_in_one_line(
        self, tmp_path: Path, interval_mm: float
    ) -> None:
        write_flat_slices(tmp_path, {9: -100, 10: 5, 11: 100})
        record = record_of(10, (8, 9), step_mm=interval_mm)
        with pytest.raises(
            ValueError, match=rf"010\.png: slice interval {interval_mm} mm; .*> 0"
        ) as e:
            read_stack(tmp_path, record, InputConfig())
        assert "\n" not in str(e.value)
        alone = read_stack(tmp_path, record, InputConfig(slices="single"))
        assert alone[:, 0, 0].tolist() == [5, 5, 5]

    @pytest.mark.parametrize("text", ["NaN", "-5.0", "0.0", "Infinity"])
    def test_a_file_of_ground_truth_with_such_an_interval_is_refused(
        self, tmp_path: Path, text: str
    ) -> None:
        coco = toy_coco(1)
        coco["images"][0]["spacing_mm_zyx"] = ["INTERVAL", 0.8, 0.8]
        path = tmp_path / "val.json"
        path.write_text(json.dumps(coco).replace('"INTERVAL"', text), encoding="utf-8")
        with pytest.raises(
            GroundTruthRefused, match=r"images\.0\.spacing_mm_zyx\.0: .*(greater than 0|finite)"
        ):
            read_ground_truth(path)
