"""A network of Hounsfield units as an ONNX program: for export, and for ONNX Runtime to run.

Reference:
    ``torch.onnx.export(dynamo=True)``.
"""

from __future__ import annotations

import warnings

import torch

from ubr_pretrain.hu_networks import HuFeatures, HuScores


def to_onnx_program(
    network: HuFeatures | HuScores, size_px: int, channels: int = 1
) -> torch.onnx.ONNXProgram:
    """Return a network as an ONNX program, its tensors under their names.

    Args:
        network: put into eval mode.
        size_px: side of the slices; features take any other as well.
        channels: of the slices.
    """
    any_size = {} if isinstance(network, HuScores) else {2: "H", 3: "W"}
    with warnings.catch_warnings():
        # torch 2.11 about its own code:
        warnings.filterwarnings("ignore", r".isinstance\(treespec, LeafSpec\)", FutureWarning)
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, channels, size_px, size_px),),
            dynamo=True,
            input_names=["hu"],
            output_names=["scores" if isinstance(network, HuScores) else "features"],
            dynamic_shapes=({0: "N", **any_size},),
            external_data=False,
            optimize=False,  # it would drop biases that are all zero
            verbose=False,
        )
    assert program is not None
    return program
