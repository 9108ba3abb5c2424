"""What an iteration learns from is a function of the seed and its number, nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from lesion_det.batches import BatchSource, Example
from lesion_det.boxes import require_trainable
from lesion_det.det_config import DetConfig, InputConfig
from lesion_det.prepared_images import PreparedImages
from tests.lesion_det.toy_slices import BODY_HU, LESION_HU, ToyDeepLesion, write_toy_deeplesion


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 5, "val": 1})


def source_of(
    toy: ToyDeepLesion, seed: int = 0, batch: int = 2, *, flip: bool = False, jitter: float = 0.0
) -> BatchSource:
    config = DetConfig(coco=toy.coco, seed=seed, batch=batch, flip=flip, scale_jitter=jitter)
    return BatchSource(toy.records(), PreparedImages(toy.images, InputConfig()), config)


def same(one: Example, other: Example) -> bool:
    return (
        (one.name, one.seed) == (other.name, other.seed)
        and torch.equal(one.hu, other.hu)
        and torch.equal(one.boxes_xyxy, other.boxes_xyxy)
    )


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(toy: ToyDeepLesion) -> None:
    shown = [i for iteration in range(1, 11) for i in source_of(toy).indices(iteration)]
    epochs = [shown[k : k + 5] for k in range(0, 20, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_an_iteration_does_not_depend_on_the_way_there(toy: ToyDeepLesion) -> None:
    one, other = source_of(toy, flip=True), source_of(toy, flip=True)
    straight = dict(one.batches(range(1, 8), range(2), workers=0))
    late = dict(other.batches(range(5, 8), range(2), workers=3))
    assert list(late) == [5, 6, 7]
    for iteration, examples in late.items():
        assert all(same(a, b) for a, b in zip(examples, straight[iteration], strict=True))


def test_two_ranks_see_the_halves_of_one_batch(toy: ToyDeepLesion) -> None:
    source = source_of(toy, batch=4)
    whole = dict(source.batches(range(1, 3), range(4), workers=0))
    halves = [dict(source.batches(range(1, 3), range(r, 4, 2), workers=0)) for r in (0, 1)]
    for iteration in (1, 2):
        joined = [halves[place % 2][iteration][place // 2] for place in range(4)]
        assert all(same(a, b) for a, b in zip(joined, whole[iteration], strict=True))


def test_the_order_hash_tells_seeds_apart_and_nothing_else(toy: ToyDeepLesion) -> None:
    assert source_of(toy).order_sha256(20) == source_of(toy, flip=True).order_sha256(20)
    assert source_of(toy).order_sha256(20) != source_of(toy, seed=1).order_sha256(20)


def test_a_flip_moves_the_boxes_with_the_picture(toy: ToyDeepLesion) -> None:
    source = source_of(toy, flip=True)
    examples = [e for _, batch in source.batches(range(1, 9), range(2), workers=0) for e in batch]
    plain = {r.file_name: source.prepared[r].hu for r in source.records}
    flipped = [not np.array_equal(e.hu.numpy(), plain[e.name]) for e in examples]
    assert any(flipped)
    assert not all(flipped)
    for example in examples:
        rows, columns = np.nonzero(example.hu[1].numpy() == LESION_HU)
        outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(example.boxes_xyxy[0], outline, atol=1e-4)


def lesion_outline(hu: np.ndarray) -> list[float]:
    """Return the outline of what is more lesion than body."""
    rows, columns = np.nonzero(hu[1] > (BODY_HU + LESION_HU) / 2)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=30)
@given(jitter=st.floats(0.01, 0.9), iteration=st.integers(1, 10**6), flip=st.booleans())
def test_scale_jitter_moves_boxes_and_lesion_together_within_its_range(
    toy: ToyDeepLesion, jitter: float, iteration: int, flip: bool
) -> None:
    plain, source = source_of(toy), source_of(toy, flip=flip, jitter=jitter)
    for place in range(2):
        example = source.example(iteration, place)
        height, width = example.hu.shape[1:]
        before = plain.example(iteration, place)
        zoom = width / before.hu.shape[2]
        slack = 0.5 / before.hu.shape[2] + 1e-9  # whole pixels
        assert 1 / (1 + jitter) - slack <= zoom <= 1 + jitter + slack
        boxes = example.boxes_xyxy.double().numpy()
        require_trainable(boxes, width, height, example.name)
        np.testing.assert_allclose(boxes[0], lesion_outline(example.hu.numpy()), atol=1.0)
        size = before.boxes_xyxy[0, 2:] - before.boxes_xyxy[0, :2]
        scales = [width / before.hu.shape[2], height / before.hu.shape[1]]
        np.testing.assert_allclose(
            boxes[0, 2:] - boxes[0, :2], size * torch.tensor(scales), rtol=1e-5
        )


def test_the_factors_of_scale_jitter_are_log_uniform_and_belong_to_place_and_iteration(
    toy: ToyDeepLesion,
) -> None:
    source, again = source_of(toy, jitter=0.5), source_of(toy, jitter=0.5)
    factors = np.array([source.zoom(i, place) for i in range(1, 1501) for place in range(2)])
    assert np.unique(factors).size == factors.size
    assert source.zoom(7, 1) == again.zoom(7, 1) != source_of(toy, seed=1, jitter=0.5).zoom(7, 1)
    exponents = np.log(factors) / np.log(1.5)
    assert -1 <= exponents.min() < -0.99
    assert 0.99 < exponents.max() <= 1
    assert kstest(exponents, "uniform", (-1, 2)).pvalue > 0.01


def test_without_scale_jitter_nothing_is_touched(toy: ToyDeepLesion) -> None:
    source = source_of(toy, jitter=0.0)
    record = source.records[source.indices(1)[0]]
    wanted = source.prepared[record]
    example = source.example(1, 0)
    np.testing.assert_array_equal(example.hu.numpy(), wanted.hu)
    boxes = wanted.frame.to_input(record.boxes_xyxy).astype(np.float32)
    np.testing.assert_array_equal(example.boxes_xyxy.numpy(), boxes)


def test_scale_jitter_leaves_order_flips_and_sampling_alone(toy: ToyDeepLesion) -> None:
    plain, jittered = source_of(toy, flip=True), source_of(toy, flip=True, jitter=0.3)
    for iteration in range(1, 9):
        one, other = plain.example(iteration, 0), jittered.example(iteration, 0)
        assert (one.name, one.seed, one.mirrored) == (other.name, other.seed, other.mirrored)


def test_a_lesion_in_the_clipped_border_is_found_before_the_first_iteration(tmp_path: Path) -> None:
    wide = write_toy_deeplesion(tmp_path, {"train": 1}, size=(200, 200))
    record = wide.records()[0]
    record.boxes_xyxy[:] = [[0.0, 0.0, 6.0, 6.0]]
    config = DetConfig(coco=wide.coco)
    source = BatchSource(
        [record], PreparedImages(wide.images, InputConfig(), tmp_path / "cache"), config
    )
    source.require_trainable()  # nothing is known yet
    source.prepared.build([record])
    with pytest.raises(ValueError, match=rf"{record.file_name}: box 0 \(.*\) has no area"):
        source.require_trainable()


def test_a_lesion_in_the_clipped_border_is_named(tmp_path: Path) -> None:
    wide = write_toy_deeplesion(tmp_path, {"train": 1}, size=(200, 200))
    record = wide.records()[0]
    record.boxes_xyxy[:] = [[0.0, 0.0, 6.0, 6.0]]
    source = source_of(ToyDeepLesion(wide.images, wide.coco), batch=1)
    source.records = [record]
    with pytest.raises(ValueError, match=rf"{record.file_name}: box 0 \(.*\) has no area"):
        source.example(1, 0)
