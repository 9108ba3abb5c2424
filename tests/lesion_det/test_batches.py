"""What an iteration learns from is a function of the seed and its number, nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lesion_det.batches import BatchSource, Example
from lesion_det.det_config import DetConfig, InputConfig
from lesion_det.prepared_images import PreparedImages
from tests.lesion_det.toy_slices import LESION_HU, ToyDeepLesion, write_toy_deeplesion


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


def test_a_lesion_in_the_clipped_border_is_named(tmp_path: Path) -> None:
    wide = write_toy_deeplesion(tmp_path, {"train": 1}, size=(200, 200))
    record = wide.records()[0]
    record.boxes_xyxy[:] = [[0.0, 0.0, 6.0, 6.0]]
    source = source_of(ToyDeepLesion(wide.images, wide.coco), batch=1)
    source.records = [record]
    with pytest.raises(ValueError, match=rf"{record.file_name}: box 0 \(.*\) has no area"):
        source.example(1, 0)
