"""Trunk and body-part regressor as ONNX graphs that read Hounsfield units, and their proof.

The window and the normalisation are in the graph, so that whoever runs it cannot get them wrong.

Shapes:
    N: slices, any number; C: 3 channels, or 1; H, W: any size of the features, ``size_px`` of the
    scorer.

Reference:
    ``torch.onnx.export(dynamo=True)``; ONNX ``metadata_props``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ubr_pretrain.ct import InputSpec
from ubr_pretrain.hu_networks import (
    HuFeatures,
    HuScores,
    outputs,
    random_slices,
    relative_difference,
)
from ubr_pretrain.onnx_program import to_onnx_program
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically

TOLERANCE = 1e-5
"""Largest difference of ONNX Runtime (float32) from the checkpoint (float64), of the largest."""

NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Say what to install.

    Raises:
        ValueError: a package is missing.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(
            f"ONNX needs {', '.join(missing)}: pip install 'ct-body-part-transfer[onnx]'"
        )


def write_onnx(
    file: Path,
    network: HuFeatures | HuScores,
    spec: InputSpec,
    channels: int,
    about: Mapping[str, Any],
) -> None:
    """Write a graph with our description as its metadata, and no trace of this machine.

    Args:
        file: replaced atomically.
        network: what is exported; its tensors keep their names.
        spec: its input.
        channels: of the slices that it is given.
        about: plain values.
    """
    program = to_onnx_program(network, spec.size_px, channels)
    graph = program.model.graph
    for part in (*graph, *graph.inputs, *graph.initializers.values()):
        part.metadata_props.clear()  # stack traces, with folders of this machine
    for node in graph:
        for value in node.outputs:
            value.metadata_props.clear()
    for key, plain in about.items():
        program.model.metadata_props[key] = plain if isinstance(plain, str) else to_json(plain)
    with write_atomically(file) as opened:
        opened.write(program.model_proto.SerializeToString())


def read_onnx_weights(file: Path) -> dict[str, Tensor]:
    """Return the weights and biases of a graph, by name."""
    import onnx
    from onnx import numpy_helper

    return {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in onnx.load(file).graph.initializer
        if tensor.name.endswith((".weight", ".bias"))
    }


def onnx_difference(
    file: Path, reference: HuFeatures | HuScores, spec: InputSpec, channels: int
) -> float:
    """Return the largest relative difference of ONNX Runtime from a network of ours.

    One and three slices of random HU; for features also slices of another height and width.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    size = spec.size_px
    shapes = [(1, channels, size, size), (3, channels, size, size)]
    if isinstance(reference, HuFeatures):
        shapes.append((2, channels, size + 32, size + 80))
    worst = 0.0
    for shape in shapes:
        hu = random_slices(spec, shape)
        (theirs,) = session.run(None, {"hu": hu.numpy()})
        worst = max(worst, relative_difference(outputs(reference, hu), torch.from_numpy(theirs)))
    return worst
