"""Boxes go to the detector's input and come back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_det.boxes import Frame, clip_boxes, flip_boxes, require_trainable
from lesion_det.det_config import InputConfig
from lesion_det.overlap import box_iou
from lesion_det.slices import body_frame


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    kept_width, kept_height = draw(st.integers(16, 1024)), draw(st.integers(16, 1024))
    zoom = draw(st.floats(0.2, 4.0))
    return Frame(
        left_px=draw(st.integers(0, 300)),
        top_px=draw(st.integers(0, 300)),
        kept_width_px=kept_width,
        kept_height_px=kept_height,
        width_px=max(1, round(kept_width * zoom)),
        height_px=max(1, round(kept_height * zoom)),
    )


coordinates = st.floats(0, 1000)
boxes = st.lists(
    st.tuples(coordinates, coordinates, st.floats(1, 200), st.floats(1, 200)), min_size=1
).map(lambda rows: np.array([[x, y, x + w, y + h] for x, y, w, h in rows]))


@given(frames(), boxes)
def test_a_box_comes_back_within_a_hundredth_of_a_pixel_even_through_float32(
    frame: Frame, original: np.ndarray
) -> None:
    seen = frame.to_input(original).astype(np.float32).astype(np.float64)
    assert np.abs(frame.to_original(seen) - original).max() < 0.01


@given(frames())
def test_the_kept_part_of_the_png_is_the_whole_input(frame: Frame) -> None:
    left, top = frame.left_px, frame.top_px
    kept = np.array([[left, top, left + frame.kept_width_px, top + frame.kept_height_px]], float)
    np.testing.assert_allclose(frame.to_input(kept), [[0, 0, frame.width_px, frame.height_px]])
    np.testing.assert_array_equal(frame.kept_xyxy, kept)
    assert frame.kept_xyxy.dtype == np.float64


@given(frames(), boxes)
def test_overlap_does_not_depend_on_the_frame(frame: Frame, original: np.ndarray) -> None:
    other = original + 3.0
    seen = box_iou(frame.to_input(original), frame.to_input(other))
    np.testing.assert_allclose(seen, box_iou(original, other), atol=1e-6)


@given(boxes, st.integers(1, 1024))
def test_a_mirror_image_of_a_mirror_image_is_the_image(original: np.ndarray, width: int) -> None:
    twice = flip_boxes(flip_boxes(original, width), width)
    np.testing.assert_allclose(twice, original, atol=1e-9)


@given(boxes, st.integers(1, 1024), st.integers(1, 1024))
def test_clipped_boxes_lie_inside_and_clipping_again_changes_nothing(
    original: np.ndarray, width: int, height: int
) -> None:
    clipped = clip_boxes(original, width, height)
    assert clipped.min() >= 0
    assert clipped[:, [0, 2]].max() <= width
    assert clipped[:, [1, 3]].max() <= height
    np.testing.assert_array_equal(clip_boxes(clipped, width, height), clipped)


def test_a_clipped_box_is_what_of_it_lies_in_the_image() -> None:
    boxes = np.array([[-5.0, 0.5, 70, 60], [1, 2, 3, 4], [70, 50, 80, 60]])
    clipped = [[0, 0.5, 64, 48], [1, 2, 3, 4], [64, 48, 64, 48]]
    np.testing.assert_array_equal(clip_boxes(boxes, 64, 48), clipped)
    flipped = [[-6, 0.5, 69, 60], [61, 2, 63, 4], [-16, 50, -6, 60]]
    np.testing.assert_array_equal(flip_boxes(boxes, 64), flipped)


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ([np.nan, 1, 5, 5], "is not finite"),
        ([1, 1, np.inf, 5], "is not finite"),
        ([5, 1, 5, 9], "has no area"),
        ([5, 9, 7, 1], "has no area"),
        ([5, 9, 7, 9], "has no area"),
        ([-1, 1, 5, 5], "leaves the input of 64x48 px"),
        ([-0.5, 1, 5, 5], "leaves the input of 64x48 px"),
        ([1, -0.5, 5, 5], "leaves the input of 64x48 px"),
        ([1, 1, 65, 5], "leaves the input of 64x48 px"),
        ([1, 1, 5, 49], "leaves the input of 64x48 px"),
    ],
)
def test_M14_a_box_that_would_poison_the_losses_is_named(box: list[float], rule: str) -> None:
    """NaN, infinite, empty and outlying boxes are named with their slice before training."""
    boxes = np.array([[1.0, 1, 9, 9], box])
    with pytest.raises(ValueError, match=r"some/109\.png: box 1") as refused:
        require_trainable(boxes, 64, 48, "some/109.png")
    place, _, said = str(refused.value).partition(": box 1 ")
    numbers, _, why = said.partition(") ")
    assert (place, why) == ("some/109.png", rule)
    np.testing.assert_array_equal([float(v) for v in numbers[1:].split(", ")], box)


def test_boxes_on_the_very_edge_are_accepted() -> None:
    require_trainable(np.array([[0.0, 0, 64, 48]]), 64, 48, "edge")


@settings(max_examples=200)
@given(
    height=st.integers(32, 1024),
    width=st.integers(32, 1024),
    spacing_yx=st.tuples(st.floats(0.2, 1.5), st.floats(0.2, 1.5)),
    body=st.tuples(*[st.floats(0, 1)] * 4),
    lesion=st.tuples(*[st.floats(0, 1)] * 4),
    config=st.sampled_from(
        [
            InputConfig(),
            InputConfig(max_px=160),
            InputConfig(pixel_mm=None),
            InputConfig(clip_border=False, max_px=None),
        ]
    ),
)
def test_a_box_in_the_input_comes_back_to_the_png(
    height: int,
    width: int,
    spacing_yx: tuple[float, float],
    body: tuple[float, ...],
    lesion: tuple[float, ...],
    config: InputConfig,
) -> None:
    stack = np.full((3, height, width), -1000, np.float32)
    rows, columns = (
        sorted(int(b * height) for b in body[:2]),
        sorted(int(b * width) for b in body[2:]),
    )
    stack[:, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = 40
    frame = body_frame(stack, spacing_yx, config)
    box = np.array(
        [[*sorted(v * width for v in lesion[:2]), *sorted(v * height for v in lesion[2:])]]
    )
    box = box[:, [0, 2, 1, 3]]
    assert np.abs(frame.to_original(frame.to_input(box)) - box).max() < 1e-9
    rounded = frame.to_input(box).astype(np.float32).astype(np.float64)  # a network's
    assert np.abs(frame.to_original(rounded) - box).max() < 0.01
