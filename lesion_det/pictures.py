"""What the network is shown and what it finds, drawn on the slices.

Shapes:
    n: lesions, k: detections of one image; h, w: rows and columns of its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16
from numpy import ndarray
from numpy.typing import NDArray

from lesion_det.batches import BatchSource
from lesion_det.boxes import Boxes
from lesion_det.ground_truth import GroundTruth
from lesion_det.metrics import TOP_K
from lesion_det.overlap import PAPER_RULE, hit_matrix
from lesion_det.predictions import Predictions
from lesion_det.prepared_images import PreparedImages
from ubr_pretrain.checkpoint import write_atomically
from ubr_pretrain.ct import Window

PANELS, COLUMNS = 8, 4
SOFT_TISSUE = Window(lower_hu=-175, upper_hu=275)
LESION_COLOUR, MISSED_COLOUR, HIT_COLOUR, FALSE_COLOUR = "#39d353", "#ff9f1c", "#4cc9f0", "#ff4d6d"


@dataclass(frozen=True, eq=False)
class Panel:
    """One input with its lesions and, where there are any, its best detections.

    Attributes:
        title: printed above.
        hu: [3, h, w]; the middle slice is drawn.
        lesions_xyxy: [n, 4] in pixels of the input.
        detections_xyxy: [k, 4] in pixels of the input, best first; None draws lesions alone.
        scores: [k].
    """

    title: str
    hu: Int16[ndarray, "3 h w"]
    lesions_xyxy: Boxes
    detections_xyxy: Boxes | None = None
    scores: NDArray[np.float64] | None = None


def draw_labels(source: BatchSource, path: Path) -> None:
    """Draw the first inputs of a training with their lesions, as the network sees them."""
    panels = []
    for iteration in range(1, -(-PANELS // source.batch) + 1):
        for place in range(source.batch):
            example = source.example(iteration, place)
            boxes = example.boxes_xyxy.double().numpy()
            panels.append(Panel(example.name, example.hu.numpy(), boxes))
    draw_panels(panels[:PANELS], "inputs and lesions (middle slice, -175..275 HU)", path)


def draw_detections(
    ground_truths: Sequence[GroundTruth],
    answers: Sequence[Predictions],
    prepared: PreparedImages,
    path: Path,
) -> None:
    """Draw images spread over the files: lesions found and missed, detections right and wrong."""
    judged = [
        (record, answer)
        for truth, answer in zip(ground_truths, answers, strict=True)
        for record in truth.images
    ]
    count = min(PANELS, len(judged))
    panels = []
    for record, answer in (judged[i * len(judged) // count] for i in range(count)):
        hu, frame = prepared[record].hu, prepared[record].frame
        best = frame.to_input(answer.boxes_xyxy[record.id][:TOP_K])
        scores = answer.scores[record.id][:TOP_K]
        lesions = frame.to_input(record.boxes_xyxy)
        panels.append(Panel(record.file_name, hu, lesions, best, scores))
    heading = (
        "lesions: green found, orange missed; the five best detections: blue right, red wrong "
        "(or a lesion that nobody annotated)"
    )
    draw_panels(panels, heading, path)


def draw_panels(panels: Sequence[Panel], heading: str, path: Path) -> None:
    """Write a grid of ``panels`` as PNG: soft-tissue window, one pixel of the input a pixel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(3.2 * COLUMNS, 3.2 * rows + 0.5))
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=9)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.92, wspace=0.03, hspace=0.08)
    for axis in axes:
        axis.set_axis_off()
    for axis, panel in zip(axes, panels, strict=False):
        _draw(axis, panel)
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    with write_atomically(path) as file:
        file.write(image.getvalue())


def _draw(axis: Any, panel: Panel) -> None:
    height, width = panel.hu.shape[1:]
    axis.imshow(
        panel.hu[1],
        cmap="gray",
        vmin=SOFT_TISSUE.lower_hu,
        vmax=SOFT_TISSUE.upper_hu,
        extent=(0, width, height, 0),  # outlines, as boxes are
        interpolation="nearest",
    )
    axis.set_title(panel.title, fontsize=7)
    if panel.detections_xyxy is None:
        _outline(axis, panel.lesions_xyxy, [LESION_COLOUR] * len(panel.lesions_xyxy))
        return
    hits = hit_matrix(panel.detections_xyxy, panel.lesions_xyxy, PAPER_RULE)
    found, right = np.any(hits, axis=0).tolist(), np.any(hits, axis=1).tolist()
    _outline(axis, panel.lesions_xyxy, [LESION_COLOUR if f else MISSED_COLOUR for f in found])
    colours = [HIT_COLOUR if hit else FALSE_COLOUR for hit in right]
    _outline(axis, panel.detections_xyxy, colours, dashed=True)
    assert panel.scores is not None
    for (x1, y1, _, _), score, colour in zip(
        panel.detections_xyxy.tolist(), panel.scores.tolist(), colours, strict=True
    ):
        axis.text(x1, y1 - 1, f"{score:.2f}", color=colour, fontsize=5)


def _outline(axis: Any, boxes_xyxy: Boxes, colours: Sequence[str], *, dashed: bool = False) -> None:
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), colour in zip(boxes_xyxy.tolist(), colours, strict=True):
        axis.add_patch(
            Rectangle(
                (x1, y1),
                x2 - x1,
                y2 - y1,
                fill=False,
                edgecolor=colour,
                linewidth=0.9,
                linestyle="--" if dashed else "-",
            )
        )
