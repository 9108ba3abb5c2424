"""The slices that a report shows, and why these."""

from pathlib import Path

import numpy as np

from lesion_det.gallery import SHOWN, choose_pictures
from lesion_det.ground_truth import read_ground_truth
from tests.lesion_det.toy_comparison import write_toy_data
from tests.lesion_det.toy_split import toy_predictions


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_gallery_shows_each_kind_and_says_what_it_could_not_read(tmp_path: Path) -> None:
    coco, images = write_toy_data(tmp_path, num_train=1, num_val=4)
    truth = read_ground_truth(coco / "val.json")
    boxes = [[(0.9, tuple(box)) for box in image.boxes_xyxy] for image in truth.images]
    false = (0.8, (1.0, 1.0, 5.0, 5.0))
    first = toy_predictions([boxes[0], boxes[1], [], [*boxes[3], false]], truth.sha256)
    second = toy_predictions([boxes[0], [false], [], boxes[3]], truth.sha256)
    pictures, problems = choose_pictures(truth, {"a": first, "b": second}, images, rng())
    assert problems == []
    assert sorted((p.kind, p.title[:6]) for p in pictures) == [
        ("differ", "000003"), ("hit", "000002"), ("hit", "000005"), ("miss", "000004"),
    ]  # fmt: skip
    for picture in pictures:
        x, y, width, height = picture.view_box
        for lesion in picture.panels[0].lesions:
            assert x <= lesion.x
            assert lesion.x + lesion.width <= x + width
            assert y <= lesion.y
            assert lesion.y + lesion.height <= y + height
    differ = next(picture for picture in pictures if picture.kind == "differ")
    assert [panel.found for panel in differ.panels] == [1, 0]
    assert differ.panels[0].lesions[0].score == 0.9
    assert differ.panels[1].lesions[0].score is None
    assert "lesion of 8 mm; slice interval 2 mm, pixel 0.8 mm" in differ.facts
    (images / truth.images[0].file_name).unlink()
    pictures, problems = choose_pictures(truth, {"a": first, "b": second}, images, rng())
    assert len(pictures) == 3
    assert problems[0].endswith("no such slice")


def test_false_alarms_are_the_highest_scores_that_hit_nothing(tmp_path: Path) -> None:
    coco, images = write_toy_data(tmp_path, num_train=1, num_val=16)
    truth = read_ground_truth(coco / "val.json")
    scores = np.random.default_rng(3).permutation(16) / 20
    corner = (1.0, 1.0, 5.0, 5.0)
    answers = toy_predictions([[(score, corner)] for score in scores], truth.sha256)
    pictures, _ = choose_pictures(truth, {"a": answers}, images, rng())
    taken = {p.title for p in pictures if p.kind == "miss"}
    order = [truth.images[i].file_name for i in np.argsort(-scores)]
    left = [name for name in order if name not in taken][: SHOWN["false alarm"]]
    assert [p.title for p in pictures if p.kind == "false alarm"] == left
