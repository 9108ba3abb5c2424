"""The metrics of one evaluation for a terminal, in per cent with one decimal."""

from __future__ import annotations

from collections.abc import Sequence

from lesion_det.metrics import DetectionMetrics, GroupRecall
from lesion_det.significance import Interval

KS_PER_LINE = 10


def metrics_table(metrics: DetectionMetrics) -> str:
    """Return every number: counts, metrics, recall by k, and top-5 recall by groups of lesions."""
    counts = [
        ("images", str(metrics.num_images)),
        ("lesions", f"{metrics.num_lesions} of {metrics.num_patients} patients"),
        (
            "detections",
            f"{metrics.num_detections}, at most {metrics.max_detections_per_image} an image",
        ),
    ]
    values = [(name, f"{_percent(value):>5}") for name, value in metrics.scalars().items()]
    values.insert(1, ("  95 % interval", f" {_bounds(metrics.top5_recall_interval)} (by patients)"))
    parts = [
        _columns(counts),
        "in per cent:\n" + _columns(values),
        _recall_by_k(metrics.topk_recall),
        *(
            _group_rows(f"top-5 recall by {what}", groups)
            for what, groups in (
                ("type", metrics.by_type),
                ("long diameter", metrics.by_size),
                ("slice interval", metrics.by_interval),
            )
            if groups
        ),
    ]
    return "\n\n".join(parts)


def _recall_by_k(recall: dict[int, float | None]) -> str:
    ks = list(recall)
    lines = []
    for start in range(0, len(ks), KS_PER_LINE):
        of_line = ks[start : start + KS_PER_LINE]
        name = f"recall @ {of_line[0]}-{of_line[-1]}"
        lines.append((name, "  ".join(f"{_percent(recall[k]):>5}" for k in of_line)))
    return _columns(lines)


def _group_rows(title: str, groups: Sequence[GroupRecall]) -> str:
    rows = [
        (
            f"  {group.name}",
            f"{_percent(group.recall):>5}  {_bounds(group.interval):<13}  "
            f"{group.num_lesions} lesions of {group.num_patients} patients",
        )
        for group in groups
    ]
    return f"{title}:\n{_columns(rows)}"


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _bounds(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return interval.note or "undefined"
    return f"{_percent(interval.low)} to {_percent(interval.high)}"


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f}"
