"""A trunk written for a library, and proved before it appears."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from converters.export_source import Source, fresh_network, read_source
from converters.model_card import Exported
from converters.onnx_graph import TOLERANCE, onnx_difference, require_onnx, write_onnx
from converters.weight_files import (
    ExportFiles,
    export_files,
    read_weights,
    write_companions,
    write_weights,
)
from ubr_pretrain.backbone import Backbone
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.hu_networks import (
    HuFeatures,
    HuScores,
    outputs,
    random_slices,
    relative_difference,
)
from ubr_pretrain.layouts import Layout, require_place, tensor_names
from ubr_pretrain.whole_file import write_atomically, write_together

ACTIVATION_TOLERANCE = 1e-6
"""Largest allowed difference of the last activations, relative to the largest activation. Both
sides compute in float64, so that only the exported values can differ."""


@dataclass(frozen=True)
class ExportedTensor:
    """One row of the printed table."""

    name: str
    exported_name: str
    shape: tuple[int, ...]
    norm: float


@dataclass(frozen=True)
class Export:
    """A verified export.

    Attributes:
        backbone: what was written; batch norms are folded.
        tensors: from the input on; each was read back bit-equal.
        activation_difference: relative, of the output on random slices.
        files: file -> SHA-256, the weights last.
        border: relative difference that one channel makes at the border of the image; None: none.
    """

    backbone: Backbone
    tensors: tuple[ExportedTensor, ...]
    activation_difference: float
    files: dict[Path, str]
    border: float | None = None


def export_backbone(
    checkpoint: Path,
    out: Path,
    layout: Layout,
    *,
    in_channels: int = 3,
    weights_license: str = "unknown",
    overwrite: bool = False,
) -> Export:
    """Write the trunk of ``checkpoint`` in ``layout``; the files appear only once verified.

    Args:
        checkpoint: a training checkpoint of ``train_ubr.py``, or a backbone file.
        out: the file to write, with one of the layout's suffixes; or a folder, without suffix.
        layout: whose names and format.
        in_channels: 3, or 1: the weights of conv1 summed (``one_channel``).
        weights_license: a Hugging Face identifier.
        overwrite: replace files that are there.

    Raises:
        CheckpointRefused: ``checkpoint`` is damaged or of another kind.
        FileExistsError: a file is there and ``overwrite`` is False, or a stranger in the folder.
        ValueError: wrong suffix, no such network in the library, or what was written does not
            compute what was read.
        OSError: a file cannot be written; then none of them is there.
    """
    finals = export_files(out, layout)
    _require_room(finals, checkpoint, overwrite=overwrite)
    source = read_source(checkpoint, in_channels)
    trunk = source.backbone.trunk
    require_place(trunk.arch, trunk.width, layout, in_channels)
    names = tensor_names(trunk.arch, layout)
    exported = Exported(source.backbone, layout, in_channels, weights_license, source.border)
    with TemporaryDirectory() as folder:
        drafts = export_files(Path(folder) / out.name, layout)
        difference = _write_verified(drafts.weights, source, exported)
        written = read_weights(drafts.weights, layout)
        for name, tensor in trunk.state_dict().items():
            if not tensor.equal(written[names[name]]):
                raise ValueError(f"{out}: {names[name]} was not read back as it was written")
        write_companions(drafts, exported, title=out.stem)
        with write_together(finals.weights.parent) as together:
            for final, draft in zip(finals.all(), drafts.all(), strict=True):
                with write_atomically(together / final.name) as file:
                    file.write(draft.read_bytes())
    rows = tuple(
        ExportedTensor(name, names[name], tuple(t.shape), float(t.norm()))
        for name, t in trunk.state_dict().items()
    )
    hashes = {file: file_sha256(file) for file in finals.all()}
    return Export(source.backbone, rows, difference, hashes, source.border)


def _require_room(files: ExportFiles, checkpoint: Path, *, overwrite: bool) -> None:
    if taken := [str(file) for file in files.all() if file.exists()]:
        if checkpoint.exists() and any(checkpoint.samefile(file) for file in taken):
            raise FileExistsError(f"{checkpoint}: is the checkpoint itself")
        if not overwrite:
            raise FileExistsError(f"{taken[0]}: exists; use --overwrite or another name")
    if not files.folder:
        return
    folder = files.weights.parent
    here = folder.iterdir() if folder.is_dir() else ()
    strange = sorted(p.name for p in here if p not in files.all() and not p.name.startswith("."))
    if strange:
        raise FileExistsError(f"{folder}: holds {strange[0]}, not of this export; use another name")


def _write_verified(file: Path, source: Source, exported: Exported) -> float:
    """Write the weights; return how far the output of what was written is from the checkpoint's.

    Raises:
        ValueError: farther than is allowed, a missing package, or a checkpoint without a regressor.
    """
    backbone, channels = source.backbone, exported.in_channels
    spec = backbone.input_spec
    if exported.layout in ("onnx", "onnx-scorer"):
        require_onnx()
        network: HuFeatures | HuScores = HuFeatures(backbone.trunk, spec, channels)
        reference: HuFeatures | HuScores = source.features
        if exported.layout == "onnx-scorer":
            if source.regressor is None or source.scores is None:
                raise ValueError(
                    "layout onnx-scorer needs a checkpoint of train_ubr.py, not a trunk"
                )
            network, reference, channels = HuScores(source.regressor, spec), source.scores, 1
        write_onnx(file, network, spec, channels, exported.about())
        difference, allowed = onnx_difference(file, reference, spec, channels), TOLERANCE
    else:
        write_weights(file, exported)
        fresh = fresh_network(
            read_weights(file, exported.layout), backbone, exported.layout, channels
        )
        hu = random_slices(spec, (1, channels, spec.size_px, spec.size_px))
        theirs = outputs(HuFeatures(fresh, spec, channels), hu)
        difference = relative_difference(outputs(source.features, hu), theirs)
        allowed = ACTIVATION_TOLERANCE
    if not difference <= allowed:
        raise ValueError(
            f"{file.name}: activations differ from the checkpoint's by {difference:.1e}, "
            f"at most {allowed:g} is allowed"
        )
    return difference
