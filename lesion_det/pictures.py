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
from lesion_det.slices import read_slice
from ubr_pretrain.ct import Window
from ubr_pretrain.whole_file import write_atomically

PANELS, COLUMNS = 8, 4
LABEL_ROWS = 4
PANEL_INCHES = 3.2
SOFT_TISSUE = Window(lower_hu=-175, upper_hu=275)
KEPT_COLOUR = "#ffd60a"
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
    """Draw how the first inputs of a training come about, from the PNG to what the network reads.

    One image a row: the PNG with its lesions and the part that is kept; the three channels of the
    input; the three as red, green and blue, with the lesions in pixels of the input. Grey is where
    the three slices are equal, colour where anatomy moves between them.
    """
    three = source.prepared.config.slices == "three"
    mm = f"{source.prepared.config.interval_mm:g} mm"
    names = [f"{mm} above", "key slice", f"{mm} below"] if three else ["key slice, three times"]
    count = min(LABEL_ROWS, len(source.records))
    heading = "PNG (yellow: kept), the channels of the input, and all three as red, green and blue"
    figure, axes = _grid(count, 2 + len(names), heading)
    for row, number in zip(axes, range(count), strict=True):
        iteration, place = 1 + number // source.batch, number % source.batch
        record = source.records[source.indices(iteration)[place]]
        example = source.example(iteration, place)
        frame = source.prepared[record].frame
        png = read_slice(source.prepared.images / record.file_name)
        spacing = " x ".join(f"{s:.3g}" for s in record.spacing_mm_zyx)
        _show(row[0], _grey(png), f"{record.file_name}  {spacing} mm")
        _outline(row[0], frame.kept_xyxy, [KEPT_COLOUR], dashed=True)
        _outline(row[0], record.boxes_xyxy, [LESION_COLOUR] * record.num_lesions)
        grey = _grey(example.hu.numpy())
        for axis, channel, name in zip(row[1:], grey, names, strict=False):
            repeated = name.startswith(mm) and np.array_equal(channel, grey[1])
            _show(axis, channel, f"{name}: the key slice, no other is there" if repeated else name)
        height, width = grey.shape[1:]
        zoom = f", zoomed {width / frame.width_px:.2f}" if width != frame.width_px else ""
        done = zoom + (", mirrored" if example.mirrored else "")
        boxes = example.boxes_xyxy.double().numpy()
        _show(row[-1], np.moveaxis(grey, 0, -1), f"input, {width} x {height} px{done}")
        _outline(row[-1], boxes, [LESION_COLOUR] * len(boxes))
    _write(figure, path)


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
    """Write a grid of ``panels`` as PNG, in the soft-tissue window."""
    figure, axes = _grid(max(1, -(-len(panels) // COLUMNS)), COLUMNS, heading)
    for axis, panel in zip(axes.ravel(), panels, strict=False):
        _draw(axis, panel)
    _write(figure, path)


def _grid(rows: int, columns: int, heading: str) -> tuple[Any, Any]:
    """Return a figure and its axes [rows, columns]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = PANEL_INCHES * rows + 0.5
    figure = Figure(figsize=(PANEL_INCHES * columns, height))
    FigureCanvasAgg(figure)
    figure.suptitle(heading, fontsize=9)
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.6 / height, wspace=0.03, hspace=0.08)
    for axis in axes.ravel():
        axis.set_axis_off()
    return figure, axes


def _write(figure: Any, path: Path) -> None:
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    with write_atomically(path) as file:
        file.write(image.getvalue())


def _grey(hu: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return HU in the soft-tissue window as 0..1."""
    low, high = SOFT_TISSUE.lower_hu, SOFT_TISSUE.upper_hu
    return np.clip((hu.astype(np.float32) - low) / (high - low), 0.0, 1.0)


def _show(axis: Any, image: NDArray[np.float32], title: str) -> None:
    """Draw a grey or coloured picture whose axes are outlines of pixels, as those of boxes are."""
    extent = (0, image.shape[1], image.shape[0], 0)
    axis.imshow(image, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
    axis.set_title(title, fontsize=7, parse_math=False)  # a $ in a name is a $


def _draw(axis: Any, panel: Panel) -> None:
    _show(axis, _grey(panel.hu[1]), panel.title)
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
