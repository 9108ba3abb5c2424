"""Views of a group: one draw for all its slices, air outside, nothing by default."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ubr_pretrain.plain_views import plainly_augmented
from ubr_pretrain.augmentation import augment_groups, draw_views, view_groups
from ubr_pretrain.ct import AIR_HU
from ubr_pretrain.ubr_config import Augmentation


def groups() -> torch.Tensor:
    hu = torch.full((2, 3, 32, 32), float(AIR_HU))
    hu[:, :, 8:24, 4:16] = 60.0
    hu[:, 1] += 10
    return hu


def rngs(*seeds: int):
    return [np.random.default_rng(seed) for seed in seeds]


@contextmanager
def torch_threads(count: int):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def test_all_zero_is_the_identity():
    assert augment_groups(groups(), Augmentation(), rngs(0, 1)) is not None
    assert torch.equal(augment_groups(groups(), Augmentation(), rngs(0, 1)), groups())


def test_a_certain_flip_mirrors_left_and_right_only():
    out = augment_groups(groups(), Augmentation(flip=1.0), rngs(0, 1))
    torch.testing.assert_close(out, groups().flip(-1), rtol=0, atol=1e-2)


def test_slices_of_a_group_share_their_view_and_groups_do_not():
    ranges = Augmentation(scale=0.3, shift=0.1, rotate_deg=20, flip=0.5, contrast=0.1, offset_hu=30)
    out = augment_groups(groups(), ranges, rngs(0, 1))
    torch.testing.assert_close(out[:, 0], out[:, 2])
    assert not torch.allclose(out[0], out[1])


def test_a_group_does_not_depend_on_its_neighbours():
    ranges = Augmentation(scale=0.3, noise_hu=20)
    both = augment_groups(groups(), ranges, rngs(5, 6))
    alone = augment_groups(groups()[1:], ranges, rngs(6))
    torch.testing.assert_close(both[1:], alone)


def test_what_comes_in_from_outside_is_air():
    out = augment_groups(groups(), Augmentation(shift=0.5), rngs(3, 4))
    assert out.min() >= AIR_HU - 0.01
    assert out.max() <= 70.01


def test_scale_changes_the_area_within_its_range():
    for seed in range(20):
        out = augment_groups(groups()[:1], Augmentation(scale=0.25), rngs(seed))
        ratio = float((out[0, 0] - AIR_HU).sum() / (groups()[0, 0] - AIR_HU).sum())
        assert 1 / 1.25**2 * 0.9 < ratio < 1.25**2 * 1.1


def test_noise_has_the_drawn_spread():
    flat = torch.zeros(1, 2, 64, 64)
    spreads = [
        augment_groups(flat, Augmentation(noise_hu=30), rngs(seed)).std().item()
        for seed in range(40)
    ]
    assert max(spreads) < 31.5
    assert 8 < np.mean(spreads) < 22


def test_a_finer_store_gives_the_view_of_the_averaged_slices():
    fine = torch.nn.functional.interpolate(groups(), scale_factor=2, mode="nearest")
    assert torch.equal(augment_groups(fine, Augmentation(), rngs(0, 1), 32), groups())
    flipped = augment_groups(fine, Augmentation(flip=1.0), rngs(0, 1), 32)
    inside = (slice(None), slice(None), slice(10, 22), slice(18, 26))
    torch.testing.assert_close(flipped[inside], groups().flip(-1)[inside], rtol=0, atol=1e-2)


def test_stretch_changes_the_width_alone():
    widths, heights = set(), set()
    for seed in range(12):
        body = augment_groups(groups(), Augmentation(stretch=0.4), rngs(seed, seed))[0, 0] > -400
        widths.add(int(body.any(0).sum()))
        heights.add(int(body.any(1).sum()))
    assert heights == {16}
    assert min(widths) < 11
    assert max(widths) > 13


def test_an_erased_rectangle_has_one_grey_and_spares_the_other_slices():
    out = augment_groups(groups(), Augmentation(erase=0.5), rngs(0, 1))
    changed = [torch.unique(a[a != b]) for a, b in zip(out[0], groups()[0], strict=True)]
    assert {len(greys) for greys in changed} == {0, 1}


def test_outside_a_reconstructed_field_is_air():
    tissue = torch.full((1, 2, 64, 64), 50.0)
    out = augment_groups(tissue, Augmentation(field=1.0), rngs(4))
    assert set(out.unique().tolist()) == {float(AIR_HU), 50.0}
    assert out[0, 0, 32, 32] == 50


def test_blur_smooths_and_keeps_the_mean():
    noise = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    out = augment_groups(noise, Augmentation(blur=1.0), rngs(2))
    assert out.std() < 0.9 * noise.std()
    assert out.mean().item() == pytest.approx(noise.mean().item(), abs=0.01)


some = st.sampled_from([0.0, 0.3, 0.9])
some_hu = st.sampled_from([0.0, 25.0])


@given(
    g=st.integers(1, 5),
    m=st.integers(1, 4),
    side=st.sampled_from([8, 31, 33, 64]),
    finer=st.sampled_from([1, 2]),
    threads=st.sampled_from([1, 2]),
    ranges=st.builds(
        Augmentation,
        scale=some,
        shift=st.sampled_from([0.0, 0.2]),
        rotate_deg=st.sampled_from([0.0, 15.0]),
        flip=some,
        contrast=some,
        offset_hu=some_hu,
        noise_hu=some_hu,
        stretch=some,
        blur=some,
        field=some,
        erase=some,
    ),
)
def test_all_groups_at_once_equal_one_after_another_bit_by_bit(g, m, side, finer, threads, ranges):
    hu = torch.randint(-1024, 1500, (g, m, side * finer, side * finer)).float()
    with torch_threads(threads):
        at_once = augment_groups(hu, ranges, rngs(*range(g)), side)
        one_by_one = plainly_augmented(hu, ranges, rngs(*range(g)), side)
    assert torch.equal(at_once, one_by_one)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side", [64, 127])
def test_views_of_many_slices_equal_plain_ones_bit_by_bit(side, threads):
    ranges = Augmentation(
        scale=0.35, stretch=0.12, shift=0.12, rotate_deg=10.0, flip=0.5, contrast=0.2,
        offset_hu=40.0, noise_hu=30.0, blur=0.8, field=0.3, erase=0.25,
    )  # fmt: skip
    hu = torch.randint(-1024, 1500, (7, 8, 2 * side, 2 * side)).float()
    with torch_threads(threads):
        at_once = augment_groups(hu, ranges, rngs(*range(7)), side)
        one_by_one = plainly_augmented(hu, ranges, rngs(*range(7)), side)
    assert torch.equal(at_once, one_by_one)


def test_views_are_drawn_ahead_and_shown_later_without_a_generator():
    ranges = Augmentation(scale=0.3, blur=0.5, noise_hu=20, field=0.5, erase=0.5)
    views = draw_views(ranges, rngs(3, 4), 3, 32)
    expected = augment_groups(groups(), ranges, rngs(3, 4))
    assert torch.equal(view_groups(groups(), views, 32), expected)
    assert torch.equal(view_groups(groups(), views.moved(torch.clone), 32), expected)
