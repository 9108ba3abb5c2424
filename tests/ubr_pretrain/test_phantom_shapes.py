"""The shapes of the synthetic body against textbook geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ubr_pretrain.phantom import sample_subject
from ubr_pretrain.phantom_painter import Canvas, Painter, cut_balls
from ubr_pretrain.phantom_shapes import (
    SAMPLES_PER_POINT,
    Frame,
    Layer,
    Rod,
    Solid,
    blade,
    both_sides,
    closed_curve_matrix,
    inner,
    outline,
    oval,
    rod,
    shell,
)
from ubr_pretrain.phantom_subject import SKELETON_KNOTS_MM, VISCERA_KNOTS_MM, Subject
from ubr_pretrain.phantom_tissues import Tissue

PLACE = (Tissue.MUSCLE, Layer.ORGAN, Frame.SKELETON)


def _unbent(*parts: Solid | Rod) -> Subject:
    """Return a person who is exactly the reference body, made of these parts."""
    subject = sample_subject(np.random.default_rng(0))
    return replace(
        subject,
        parts=parts,
        belly=0.0,
        skeleton_mm=SKELETON_KNOTS_MM.astype(float),
        viscera_mm=VISCERA_KNOTS_MM.astype(float),
        width=np.ones_like(subject.width),
        depth=np.ones_like(subject.depth),
        waves=np.empty((0, 6)),
    )


def _painted_mm2(subject: Subject, z_mm: float, pixel_mm: float = 0.5) -> float:
    canvas = Canvas(512, pixel_mm)
    labels = np.zeros((512, 512), np.uint8)
    Painter(subject, np.array([z_mm]), canvas).paint(0, labels)
    return float((labels > 0).sum()) * pixel_mm**2


@settings(deadline=None)
@given(st.integers(4, 16), st.integers(0, 1000))
def test_closed_curve_passes_through_its_control_points_and_keeps_lines(num: int, seed: int):
    matrix = closed_curve_matrix(num)
    points = np.random.default_rng(seed).normal(size=(num, 2))
    np.testing.assert_allclose((matrix @ points)[::SAMPLES_PER_POINT], points, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)


def test_oval_has_the_area_of_its_ellipse_whatever_its_turn():
    for turn in (0, 30, 90):
        part = oval("o", *PLACE, [(400, 3, -4, 40, 25, turn), (500, 3, -4, 40, 25, turn)], (0, 0))
        assert _painted_mm2(_unbent(part), 450) == pytest.approx(math.pi * 40 * 25, rel=0.03)


def test_turn_is_clockwise_in_the_picture():
    part = oval("o", *PLACE, [(400, 0, 0, 40, 4, 30), (500, 0, 0, 40, 4, 30)], (0, 0))
    labels = np.zeros((256, 256), np.uint8)
    Painter(_unbent(part), np.array([450.0]), Canvas(256, 1.0)).paint(0, labels)
    rows, columns = np.nonzero(labels)
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(math.tan(math.radians(30)), rel=0.1)


@pytest.fixture(scope="module")
def subject_of_ball() -> Subject:
    return _unbent(Rod("r", *PLACE, np.array([[0.0, 0.0, 450.0, 20.0]])))


@pytest.mark.parametrize("height_mm", [-18.0, -11.5, 0.0, 3.3, 14.0, 19.0])
def test_rod_is_cut_like_a_sphere(subject_of_ball: Subject, height_mm: float):
    radius_mm = math.sqrt(20**2 - height_mm**2)
    rim_mm2 = 2 * math.pi * radius_mm * 0.3  # OpenCV paints the pixels that the circle touches
    painted_mm2 = _painted_mm2(subject_of_ball, 450 + height_mm)
    assert painted_mm2 == pytest.approx(math.pi * radius_mm**2, abs=rim_mm2 + 1)


def test_balls_are_found_in_exactly_the_slices_that_they_reach():
    rng = np.random.default_rng(1)
    balls = np.column_stack([rng.uniform(-50, 50, (40, 2)), rng.uniform(300, 700, 40),
                             rng.uniform(1, 15, 40)])  # fmt: skip
    z_mm = np.sort(rng.uniform(280, 720, 90))
    subject = _unbent()
    part = Rod("r", *PLACE, balls)
    found = {i: len(c) for i, c in cut_balls(part, z_mm, subject, Canvas(256, 2.0))}
    for index, z in enumerate(z_mm):
        expected = sum(abs(z - ball_z) <= radius for _, _, ball_z, radius in balls)
        assert found.get(index, 0) == expected


def test_solid_is_seen_between_its_ends_only():
    part = oval("o", *PLACE, [(400, 0, 0, 30, 30), (500, 0, 0, 30, 30)])
    inside, _ = part.at(np.array([399.9, 400.0, 450.0, 500.0, 500.1]))
    assert inside.tolist() == [1, 2, 3]


def test_cap_rounds_the_end_like_a_sphere():
    part = oval("o", *PLACE, [(400, 0, 0, 30, 30), (500, 0, 0, 30, 30)], (30, 0))
    _, points = part.at(np.array([410.0, 460.0]))
    radius = np.linalg.norm(points, axis=2).mean(1)
    assert radius[0] == pytest.approx(math.sqrt(30**2 - 20**2), rel=1e-6)
    assert radius[1] == pytest.approx(30)


def test_half_outline_is_completed_by_its_mirror_image():
    half = [(0.0, -50.0), (40.0, -20.0), (40.0, 30.0), (0.0, 50.0)]
    part = outline("o", *PLACE, {400: half, 500: half}, half=True)
    points = {(round(x, 6), round(y, 6)) for x, y in part.points_xy[0]}
    assert len(points) == 6
    assert points == {(-x + 0.0, y) for x, y in points}


def test_mirrored_pair_lies_on_both_sides():
    parts = [
        oval("o", *PLACE, [(400, 30, 5, 9, 9), (500, 30, 5, 9, 9)]),
        rod("r", *PLACE, [(20, 0, 400, 4), (60, 0, 450, 4)]),
    ]
    pairs = both_sides(parts)
    assert [p.name for p in pairs] == ["o_left", "o_right", "r_left", "r_right"]
    assert isinstance(pairs[1], Solid)
    assert isinstance(pairs[3], Rod)
    np.testing.assert_allclose(pairs[1].points_xy[..., 0].mean(), -30)
    assert (pairs[3].balls_mm[:, 0] < 0).all()


def test_blade_has_its_thickness():
    part = blade("b", *PLACE, {z: (8.0, [(-40.0, 0.0), (0.0, 0.0), (40.0, 0.0)]) for z in (1, 2)})
    assert np.ptp(part.points_xy[0, :, 1]) == pytest.approx(8)


def test_inner_and_shell_lie_within():
    part = oval("o", *PLACE, [(400, 5, 5, 30, 20), (500, 5, 5, 30, 20)])
    smaller, thinner = inner(part, *PLACE[:2], 0.8), shell(part, *PLACE[:2], 3.0)
    assert smaller.z_mm[0] > part.z_mm[0]
    np.testing.assert_array_equal(thinner.z_mm, part.z_mm)
    for inside in (smaller, thinner):
        ring = part.points_xy[0].astype(np.float32)
        for x, y in inside.points_xy[0]:
            assert cv2.pointPolygonTest(ring, (float(x), float(y)), False) > 0
    gap = np.linalg.norm(part.points_xy[0] - thinner.points_xy[0], axis=1)
    np.testing.assert_allclose(gap, 3.0)


def test_gas_fills_the_front_of_a_lumen_above_a_level():
    lumen = oval("o", *PLACE, [(400, 0, 0, 30, 30), (500, 0, 0, 30, 30)], (0, 0))
    gas = replace(lumen, tissue=Tissue.GAS, gas_fraction=0.5)
    canvas = Canvas(256, 0.5)
    labels = np.zeros((256, 256), np.uint8)
    Painter(_unbent(lumen, gas), np.array([450.0]), canvas).paint(0, labels)
    rows_gas, _ = np.nonzero(labels == Tissue.GAS)
    rows_fluid, _ = np.nonzero(labels == Tissue.MUSCLE)
    assert rows_gas.max() <= rows_fluid.min()
    assert len(rows_gas) == pytest.approx(len(rows_fluid), rel=0.05)


def test_canvas_places_millimetres_and_turns_clockwise():
    canvas = Canvas(101, 2.0, (10.0, -20.0), math.pi / 2)
    np.testing.assert_allclose(canvas.to_pixels(np.array([0.0, 0.0])), [55, 40])
    np.testing.assert_allclose(canvas.to_pixels(np.array([20.0, 0.0])), [55, 50])
