"""An exported file loads strictly and computes what the checkpoint computes, in every layout."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import save_file

from converters import verified_export
from converters.layouts import torchvision_features
from converters.verified_export import export_backbone
from converters.weight_files import read_weights
from tests.converters.checkpoints import SPEC, write_regressor
from ubr_pretrain.backbone import read_backbone, read_imagenet_trunk
from ubr_pretrain.checkpoint import CheckpointRefused, file_sha256
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.foreign_weights import read_plain_pickle
from ubr_pretrain.hu_networks import HuFeatures, outputs, random_slices, relative_difference
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.trunk import Trunk

OUTPUTS = (
    ("ubr", "trunk.safetensors"),
    ("torchvision", "trunk.safetensors"),
    ("torchvision", "trunk.pth"),
    ("detectron2", "trunk.pkl"),
    ("detectron2", "trunk.pth"),
    ("torchvision", "folder"),
    ("detectron2", "folder"),
)
every_output = pytest.mark.parametrize(("layout", "name"), OUTPUTS)


@pytest.fixture(
    scope="module",
    params=[("vgg16", False), ("vgg16", True), ("alexnet", False), ("alexnet", True)],
    ids=lambda param: f"{param[0]}-{'bn' if param[1] else 'plain'}",
)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch, batch_norm = request.param
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, arch, 0.25, batch_norm=batch_norm)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "vgg16", 0.125, batch_norm=False)


@every_output
def test_the_export_computes_what_the_checkpoint_computes(
    layout, name: str, checkpoint: Path, tmp_path: Path
):
    export = export_backbone(checkpoint, tmp_path / name, layout)
    trunk = read_regressor(checkpoint).regressor.trunk
    assert export.activation_difference <= 1e-6
    assert [row.name for row in export.tensors] == list(export.backbone.trunk.state_dict())
    assert export.backbone.provenance.folded_batch_norm == trunk.batch_norm
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert export.files == {path: file_sha256(path) for path in files}

    # An independent reader: layers in the order of the numbers in their names.
    *_, weights_file = export.files
    tensors = read_weights(weights_file, layout)
    ordered = sorted(tensors, key=lambda key: [int(digits) for digits in re.findall(r"\d+", key)])
    weights = [tensors[key].double() for key in ordered if key.endswith("weight")]
    biases = [tensors[key].double() for key in ordered if key.endswith("bias")]
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)).double()
    expected = trunk.double()(x.clone())
    for layer, weight, bias in zip(trunk.layers, weights, biases, strict=True):
        if layer.pool_before:
            x = torch.nn.functional.max_pool2d(x, 2 if trunk.arch == "vgg16" else 3, 2)
        x = torch.conv2d(x, weight, bias, layer.stride, layer.padding).relu()
    assert float((x - expected).abs().max() / expected.abs().max()) <= 1e-6


def test_the_ubr_layout_is_a_backbone_file(checkpoint: Path, tmp_path: Path):
    export_backbone(checkpoint, tmp_path / "a.safetensors", "ubr")
    backbone = read_backbone(tmp_path / "a.safetensors")
    assert backbone.input_spec == SPEC
    assert backbone.provenance.pretraining == "ubr"
    assert backbone.provenance.iterations == 7
    assert not backbone.trunk.batch_norm


def test_a_backbone_file_is_a_source_too(plain: Path, tmp_path: Path):
    export_backbone(plain, tmp_path / "a.safetensors", "ubr")
    from_run = export_backbone(plain, tmp_path / "run.pkl", "detectron2")
    from_file = export_backbone(tmp_path / "a.safetensors", tmp_path / "file.pkl", "detectron2")
    assert from_file.tensors == from_run.tensors
    assert (tmp_path / "file.pkl").read_bytes() == (tmp_path / "run.pkl").read_bytes()


@pytest.mark.parametrize("name", ["trunk.safetensors", "trunk.pth"])
def test_torchvisions_layout_is_taken_for_imagenets_only_without_its_description(
    name: str, checkpoint: Path, tmp_path: Path
):
    export = export_backbone(checkpoint, tmp_path / name, "torchvision")
    trunk = export.backbone.trunk
    with pytest.raises(CheckpointRefused, match="exported by this project"):
        read_imagenet_trunk(tmp_path / name, trunk.arch, trunk.width)
    bare = tmp_path / "bare.safetensors"
    save_file(read_weights(tmp_path / name, "torchvision"), bare)
    again = read_imagenet_trunk(bare, trunk.arch, trunk.width).trunk
    for key, tensor in trunk.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_the_paper_s_width_loads_strictly_into_torchvisions_own_network(arch, tmp_path: Path):
    source = write_regressor(tmp_path / "best.safetensors", arch, 1.0, batch_norm=False)
    out = tmp_path / "trunk.safetensors"
    assert export_backbone(source, out, "torchvision").activation_difference <= 1e-6
    with torch.device("meta"):
        network = getattr(torchvision.models, arch)()
    missing, unexpected = network.load_state_dict(
        read_weights(out, "torchvision"), strict=False, assign=True
    )
    assert unexpected == []
    assert missing
    assert all(name.startswith("classifier.") for name in missing)


def test_input_and_provenance_travel_with_every_file(plain: Path, tmp_path: Path):
    export_backbone(plain, tmp_path / "a.safetensors", "torchvision")
    export_backbone(plain, tmp_path / "a.pth", "torchvision")
    export_backbone(plain, tmp_path / "a.pkl", "detectron2")
    with safe_open(tmp_path / "a.safetensors", framework="np") as file:
        inside = file.metadata()
    sidecar = json.loads((tmp_path / "a.json").read_text("utf-8"))
    zoo = read_plain_pickle(tmp_path / "a.pkl")
    for about in (sidecar, zoo, {key: json.loads(inside[key]) for key in ("input_spec",)}):
        assert InputSpec.model_validate(about["input_spec"]) == SPEC
    for made in (sidecar["provenance"], zoo["provenance"], json.loads(inside["provenance"])):
        assert (made["init"], made["pretraining"], made["iterations"]) == ("random", "ubr", 7)
    assert sidecar["sha256"] == file_sha256(tmp_path / "a.pth")


@pytest.mark.parametrize(("layout", "key"), [("detectron2", None), ("mmdetection", "meta")])
def test_a_nested_pth_holds_tensors_and_plain_values_only(layout, key, tmp_path: Path):
    width = 0.125 if layout == "detectron2" else 1.0
    arch = "vgg16" if layout == "detectron2" else "alexnet"
    source = write_regressor(tmp_path / "best.safetensors", arch, width, batch_norm=False)
    export = export_backbone(source, tmp_path / "a.pth", layout, weights_license="mit")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    about = content[key] if key else content
    assert InputSpec.model_validate(about["input_spec"]) == SPEC
    assert about["provenance"]["iterations"] == 7
    assert about["license"] == "mit"
    assert not (tmp_path / "a.json").exists()
    stored = content["state_dict" if key else "model"]
    assert [row.exported_name for row in export.tensors] == list(stored)


def test_the_pickle_is_what_detectron2_reads_by_name(plain: Path, tmp_path: Path):
    export_backbone(plain, tmp_path / "a.pkl", "detectron2")
    zoo = read_plain_pickle(tmp_path / "a.pkl")
    assert zoo["matching_heuristics"] is True
    assert zoo["__author__"] not in ("", "Caffe2")
    assert all(name.startswith("backbone.conv") for name in zoo["model"])
    assert all(type(a) is np.ndarray and a.dtype == np.float32 for a in zoo["model"].values())
    assert len(zoo["model"]) == 26


class Marker:
    """Writes a file when it is unpickled by a reader that does as it is told."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_C01_a_pickle_with_anything_but_arrays_is_refused_unexecuted(tmp_path: Path):
    """A .pkl may hold arrays, containers, text and numbers; any other name in it is refused
    unexecuted."""
    marker = tmp_path / "executed"
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"backbone.conv1_1.weight": Marker(marker)}}, 4))
    with pytest.raises(CheckpointRefused, match=r"evil\.pkl: .*is not allowed"):
        read_plain_pickle(path)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1, 40, 1000])
def test_C02_a_pickle_that_was_cut_off_is_refused(keep: int, plain: Path, tmp_path: Path):
    """A cut .pkl is refused by name."""
    export_backbone(plain, tmp_path / "a.pkl", "detectron2")
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "a.pkl").read_bytes()[:keep])
    with pytest.raises(CheckpointRefused, match=r"cut\.pkl: not a pickle of plain arrays"):
        read_plain_pickle(tmp_path / "cut.pkl")


def test_a_pth_beside_another_files_description_is_refused(plain: Path, tmp_path: Path):
    export_backbone(plain, tmp_path / "a.pth", "torchvision")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes() + b"\0")
    with pytest.raises(CheckpointRefused, match=r"not the file that a\.json describes"):
        read_weights(tmp_path / "a.pth", "torchvision")


@pytest.mark.parametrize(("layout", "name"), [(o[0], o[1]) for o in OUTPUTS if o[0] != "ubr"])
def test_an_export_that_computes_something_else_is_never_published(
    layout, name: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def other_network(*_args):
        torch.manual_seed(1)
        return Trunk("vgg16", 0.125)

    monkeypatch.setattr(verified_export, "fresh_network", other_network)
    with pytest.raises(ValueError, match="activations differ from the checkpoint's by"):
        export_backbone(plain, tmp_path / name, layout)
    assert list(tmp_path.iterdir()) == []


def test_the_activation_check_sees_one_changed_weight():
    torch.manual_seed(2)
    trunk, other = Trunk("vgg16", 0.125), Trunk("vgg16", 0.125)
    other.load_state_dict(trunk.state_dict())
    hu = random_slices(SPEC, (1, 3, 64, 64))
    ours, same = (outputs(HuFeatures(network, SPEC), hu) for network in (trunk, other))
    assert relative_difference(ours, same) == 0.0
    with torch.no_grad():
        other.conv3_2.weight[0, 0, 1, 1] += 0.01
    assert relative_difference(ours, outputs(HuFeatures(other, SPEC), hu)) > 1e-6
    assert relative_difference(ours, ours[:, :, 1:]) == float("inf")


def test_a_last_pool_or_another_order_would_be_noticed():
    features = torchvision_features("vgg16", 0.125)
    assert isinstance(features[-1], torch.nn.MaxPool2d)
    assert features[:-1](torch.zeros(1, 3, 64, 64)).shape[-2:] == (4, 4)
    assert Trunk("vgg16", 0.125)(torch.zeros(1, 3, 64, 64)).shape[-2:] == (4, 4)
