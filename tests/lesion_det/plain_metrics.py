"""Random splits, and top-k recall and FROC written from their definitions in plain loops."""

import math

import numpy as np
import pytest
from hypothesis import strategies as st

GRID = st.integers(0, 8)  # small integers: IoU of exactly one half, ties and repeated hits abound


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    x1, y1 = draw(GRID), draw(GRID)
    return (x1, y1, x1 + draw(st.integers(1, 5)), y1 + draw(st.integers(1, 5)))


@st.composite
def splits(draw: st.DrawFn):
    """Lesions and detections of one to four images."""
    num_images = draw(st.integers(1, 4))
    score = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
    lesions = [draw(st.lists(boxes(), max_size=4)) for _ in range(num_images)]
    detections = [draw(st.lists(st.tuples(score, boxes()), max_size=8)) for _ in range(num_images)]
    return lesions, detections


@st.composite
def crowded_splits(draw: st.DrawFn, num_detections=(0, 5, 25)):
    """Images of many detections, some near a lesion, some a line or a point, many of them ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_scores = draw(st.sampled_from([1, 3, 50]))

    def box(smallest):
        x, y, w, h = *rng.integers(0, 30, 2).tolist(), *rng.integers(smallest, 20, 2).tolist()
        return (x, y, x + w, y + h)

    def detection(truths):
        if truths and rng.random() < 0.4:
            x1, y1, x2, y2 = truths[rng.integers(len(truths))]
            dx, dy, dw = rng.integers(0, 4, 3).tolist()
            return (x1 + dx, y1 + dy, x2 + dx + dw, y2 + dy)
        return box(0)

    lesions, detections = [], []
    for _ in range(draw(st.integers(1, 3))):
        truths = [box(1) for _ in range(draw(st.integers(0, 7)))]
        count = draw(st.sampled_from(num_detections))
        lesions.append(truths)
        detections.append(
            [(int(rng.integers(num_scores)) / num_scores, detection(truths)) for _ in range(count)]
        )
    return lesions, detections


any_splits = splits() | crowded_splits()


def plain_iou(a, b, extra):
    width = min(a[2], b[2]) - max(a[0], b[0]) + extra
    height = min(a[3], b[3]) - max(a[1], b[1]) + extra
    shared = max(width, 0) * max(height, 0)

    def area(box):
        return (box[2] - box[0] + extra) * (box[3] - box[1] + extra)

    return shared / (area(a) + area(b) - shared)


def plain_hits(a, b, strict, plus_one):
    iou = plain_iou(a, b, 1 if plus_one else 0)
    return iou > 0.5 if strict else iou >= 0.5


def plain_recall(lesions, detections, k, strict=True, plus_one=False):
    """Return recall over lesions and its mean over slices with lesions; None without lesions."""
    found, per_slice = 0, []
    for truths, answers in zip(lesions, detections, strict=True):
        best = sorted(answers, key=lambda d: (-d[0], *d[1]))[:k]
        of_slice = sum(any(plain_hits(d[1], t, strict, plus_one) for d in best) for t in truths)
        found += of_slice
        if truths:
            per_slice.append(of_slice / len(truths))
    if not per_slice:
        return None, None
    return found / sum(map(len, lesions)), sum(per_slice) / len(per_slice)


def plain_froc(lesions, detections, strict=True):
    """Return (false positives per image, sensitivity) of every threshold, falling."""
    points = []
    for threshold in [math.inf, *sorted({d[0] for answers in detections for d in answers})[::-1]]:
        found = false = 0
        for truths, answers in zip(lesions, detections, strict=True):
            kept = [box for score, box in answers if score >= threshold]
            found += sum(any(plain_hits(b, t, strict, False) for b in kept) for t in truths)
            false += sum(not any(plain_hits(b, t, strict, False) for t in truths) for b in kept)
        points.append((false / len(lesions), found / sum(map(len, lesions))))
    return points


def plain_sensitivity(points, rate):
    return max(sensitivity for fp, sensitivity in points if fp <= rate)


def approx(value):
    """Return what equals ``value`` to rounding, None being equal to itself alone."""
    return value if value is None else pytest.approx(value)
