"""Views of a slice: what they show, that opposites cancel, and that nothing depends on chance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ubr_pretrain.ct import AIR_HU, InputSpec
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.scoring import score_slices
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.view_scores import VIEWS, View, score_views, view_slices

SPEC = InputSpec(size_px=32, std=(64.0, 64.0, 64.0))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def regressor():
    torch.manual_seed(3)
    return Regressor(Trunk(width=0.1), None)


@pytest.fixture(scope="module")
def slices():
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(0, 3000, (11, 32, 32)), (0, 3, 3))
    return np.clip(smooth, AIR_HU, 2000).astype(np.int16)


def test_one_view_is_the_plain_score(regressor, slices):
    scores, sd = score_views(regressor, slices, SPEC, CPU, num_views=1)
    assert sd is None
    np.testing.assert_array_equal(scores, score_slices(regressor, slices, SPEC, CPU))


def test_mean_and_deviation_are_those_of_the_views_one_by_one(regressor, slices):
    scores, sd = score_views(regressor, slices, SPEC, CPU, num_views=5, batch=4)
    hu = torch.from_numpy(slices.astype(np.float32))
    for z in range(len(slices)):
        alone = []
        for view in VIEWS[:5]:
            seen = view_slices(hu[z : z + 1], view).numpy()
            grey = np.clip((seen + 175) / 450, 0, 1) * 255
            values = torch.from_numpy((np.repeat(grey[:, None], 3, 1) - 50) / 64)
            with torch.inference_mode():
                alone.append(float(regressor.eval()(values)))
        assert scores[z] == pytest.approx(sum(alone) / 5, abs=1e-5)
        spread = (sum((a - sum(alone) / 5) ** 2 for a in alone) / 4) ** 0.5
        assert sd[z] == pytest.approx(spread, abs=1e-5)


def test_a_slice_scores_the_same_whatever_its_company_and_mode(regressor, slices):
    all_scores, all_sd = score_views(regressor.train(), slices, SPEC, CPU)
    assert regressor.training
    scores, sd = score_views(regressor.eval(), slices[4:5], SPEC, CPU)
    assert not regressor.training
    assert scores[0] == pytest.approx(all_scores[4], abs=1e-5)
    assert sd[0] == pytest.approx(all_sd[4], abs=1e-5)


def test_odd_numbers_of_views_are_balanced():
    for k in range(1, len(VIEWS) + 1, 2):
        chosen = VIEWS[:k]
        assert sum(view.shift for view in chosen) == 0
        assert sum(view.offset_hu for view in chosen) == 0
        assert np.prod([view.scale for view in chosen]) == pytest.approx(1)
    assert len(set(VIEWS)) == len(VIEWS)


@given(st.integers(-15, 15))
def test_a_shift_moves_whole_pixels_and_brings_in_air(pixels):
    hu = torch.arange(32 * 32, dtype=torch.float32).reshape(1, 32, 32)
    moved = view_slices(hu, View(shift=pixels / 32))[0]
    for row in range(32):
        expected = hu[0, row - pixels] if 0 <= row - pixels < 32 else torch.full((32,), AIR_HU)
        torch.testing.assert_close(moved[row], expected.float(), atol=0.02, rtol=0)


def test_a_view_enlarges_about_the_centre():
    body = np.full((33, 33), AIR_HU, np.float32)
    rows, columns = np.mgrid[:33, :33] - 16
    body[np.hypot(rows, columns) < 8] = 40
    for scale in (1.25, 0.8):
        seen = view_slices(torch.from_numpy(body)[None], View(scale=scale))[0].numpy()
        assert (seen > -300).sum() == pytest.approx((body > -300).sum() * scale**2, rel=0.1)
        np.testing.assert_allclose(seen, seen[::-1], atol=0.1)
        np.testing.assert_allclose(seen, seen.T, atol=0.1)


def test_an_offset_is_exact(slices):
    hu = torch.from_numpy(slices.astype(np.float32))
    seen = view_slices(hu, View(offset_hu=-10.0))
    np.testing.assert_array_equal(seen.numpy(), slices.astype(np.float32) - 10)


def test_impossible_numbers_of_views_are_refused(regressor, slices):
    for number in (0, len(VIEWS) + 1):
        with pytest.raises(ValueError, match=f"num_views {number} must be 1 to {len(VIEWS)}"):
            score_views(regressor, slices, SPEC, CPU, num_views=number)


def test_a_score_that_is_not_finite_names_its_slice(regressor, slices):
    class Broken(Regressor):
        def forward(self, slices):
            return torch.where(torch.arange(len(slices)) == 6, torch.nan, 1.0)

    with pytest.raises(FloatingPointError, match="slice 6"):
        score_views(Broken(Trunk(width=0.1)), slices, SPEC, CPU)
