"""What the network reads, against independent arithmetic."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from ubr_pretrain.ct import AIR_HU, InputSpec, Window
from ubr_pretrain.network_input import network_input, resample_slices


@given(st.floats(-2000, 3000), st.floats(-500, 0), st.floats(1, 1000), st.floats(0.1, 255))
def test_a_pixel_is_windowed_scaled_and_normalised(hu, lower, width, scale):
    spec = InputSpec(
        window=Window(lower_hu=lower, upper_hu=lower + width),
        scale=scale,
        mean=(1.0, 2.0, 3.0),
        std=(0.5, 1.0, 2.0),
    )
    got = network_input(torch.full((1, 1, 1), hu, dtype=torch.float64), spec).flatten().tolist()
    grey = scale * min(max((hu - lower) / width, 0.0), 1.0)
    assert got == pytest.approx([(grey - 1) / 0.5, grey - 2, (grey - 3) / 2], abs=1e-6)


def test_the_default_is_the_released_input():
    low, high = network_input(torch.tensor([[[-175.0]], [[275.0]]]), InputSpec())[:, 0].flatten()
    assert (low.item(), high.item()) == (-50.0, 205.0)


def test_whole_image_without_fov_and_square_images_fill_the_square():
    hu = np.arange(4 * 128 * 128, dtype=np.int16).reshape(4, 128, 128) % 2000
    same = resample_slices(hu, (0.7, 0.7), InputSpec(size_px=128))
    assert np.array_equal(same, hu)
    means = resample_slices(hu, (0.7, 0.7), InputSpec(size_px=64))
    blocks = hu.reshape(4, 64, 2, 64, 2).mean(axis=(2, 4))
    assert np.abs(means - blocks).max() <= 0.5


@given(
    rows=st.integers(33, 150),
    columns=st.integers(33, 150),
    num_slices=st.integers(1, 9),
    turned=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@example(rows=64, columns=64, num_slices=3, turned=False, seed=0)  # 2 x 2: rounded by us
def test_slices_together_are_what_each_alone_is_in_float32(rows, columns, num_slices, turned, seed):
    hu = np.random.default_rng(seed).integers(-1024, 3072, (num_slices, rows, columns), np.int16)
    stored = hu[:, ::-1, ::-1] if turned else hu
    longer = max(rows, columns)
    shape = [max(1, round(n * 32 / longer)) for n in (rows, columns)]
    square = resample_slices(stored, (1.0, 1.0), InputSpec(size_px=32))
    top, left = ((32 - n) // 2 for n in shape)
    for got, one in zip(square, stored, strict=True):
        alone = cv2.resize(one.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        inside = got[top : top + shape[0], left : left + shape[1]]
        assert np.array_equal(inside, np.rint(alone))


def disc(size: int, pixel_mm: float, radius_mm: float = 80.0) -> np.ndarray:
    at = (np.arange(size) - (size - 1) / 2) * pixel_mm
    inside = at[:, None] ** 2 + at[None, :] ** 2 < radius_mm**2
    return np.where(inside, 40, AIR_HU).astype(np.int16)[None]


def test_with_fov_a_body_has_one_size_whatever_the_scan():
    spec = InputSpec(size_px=128, fov_mm=512)
    area_mm2 = np.pi * 80.0**2
    for size, pixel_mm in ((512, 0.5), (256, 1.2), (128, 4.0), (400, 2.0)):
        small = resample_slices(disc(size, pixel_mm), (pixel_mm, pixel_mm), spec)
        area = ((small[0].astype(float) - AIR_HU) / (40 - AIR_HU)).sum() * 16
        assert area == pytest.approx(area_mm2, rel=0.03)
        assert small.shape == (1, 128, 128)


def test_anatomy_is_not_stretched_by_an_oblong_image_or_pixel():
    tall = np.repeat(disc(200, 2.0), 2, axis=1)[:, 100:300]  # pixels of 1 x 2 mm, 200 x 400 mm
    square = resample_slices(tall, (1.0, 2.0), InputSpec(size_px=100, fov_mm=400))
    body = square[0] > -500
    assert abs(int(body.any(axis=0).sum()) - int(body.any(axis=1).sum())) <= 1
    assert square[0, 0, 0] == AIR_HU


@pytest.mark.parametrize(
    "values",
    [
        {"mean": (0.0, float("nan"), 0.0)},
        {"std": (1.0, float("inf"), 1.0)},
        {"scale": float("inf")},
    ],
)
def test_an_input_that_is_no_number_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not all finite"):
        InputSpec.model_validate(values)
