"""What the export writes, the import reads back: the same tensors, input and history."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from converters.export_backbone import main
from converters.verified_export import export_backbone
from lesion_det.det_config import DetConfig
from lesion_det.initialization import make_start
from ubr_pretrain.backbone import Backbone, Provenance, read_backbone, write_backbone
from ubr_pretrain.checkpoint import CheckpointRefused
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.layouts import Layout
from ubr_pretrain.trunk import Architecture, Trunk

SPEC = InputSpec(std=(64.0, 64.0, 64.0), fov_mm=512.0, size_px=32)
MADE = Provenance(init="random", pretraining="ubr", iterations=7, config={"seed": 3})
NARROW = 0.25

ANY_WIDTH: list[tuple[Layout, str]] = [
    ("ubr", "w.safetensors"),
    ("torchvision", "w.safetensors"),
    ("torchvision", "w.pth"),
    ("detectron2", "w.pth"),
    ("detectron2", "w.pkl"),
    ("segmentation_models_pytorch", "w.safetensors"),
    ("ubr", "folder"),
    ("torchvision", "folder"),
    ("detectron2", "folder"),
    ("segmentation_models_pytorch", "folder"),
]
FULL_WIDTH: list[tuple[Layout, str]] = [
    ("mmdetection", "w.pth"),
    ("timm", "folder"),
]


def written(folder: Path, arch: Architecture, width: float) -> tuple[Path, Trunk]:
    torch.manual_seed(5)
    trunk = Trunk(arch, width)
    for conv in trunk.children():
        torch.nn.init.normal_(conv.bias, std=0.1)  # type: ignore[arg-type]
    path = folder / f"source_{arch}.safetensors"
    write_backbone(path, Backbone(trunk, SPEC, MADE))
    return path, trunk


def require_equal(out: Path, trunk: Trunk, layout: Layout) -> None:
    found = read_external_trunk(out, trunk.width, arch=trunk.arch)
    assert found.layout == layout
    assert found.backbone.input_spec == SPEC
    assert found.backbone.provenance == MADE
    assert found.backbone.trunk.arch == trunk.arch
    state = found.backbone.trunk.state_dict()
    assert state.keys() == trunk.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in trunk.state_dict().items())
    other = InputSpec(std=(3.0, 3.0, 3.0))
    with pytest.raises(CheckpointRefused, match="says that its input was"):
        read_external_trunk(out, trunk.width, other, trunk.arch)


@pytest.mark.parametrize(("layout", "name"), ANY_WIDTH)
def test_a_narrow_vgg16_comes_back_from_every_layout(
    tmp_path: Path, layout: Layout, name: str
) -> None:
    path, trunk = written(tmp_path, "vgg16", NARROW)
    export_backbone(path, tmp_path / name, layout)
    require_equal(tmp_path / name, trunk, layout)


@pytest.mark.parametrize(("layout", "name"), FULL_WIDTH)
def test_a_full_vgg16_comes_back_from_layouts_that_know_no_other(
    tmp_path: Path, layout: Layout, name: str
) -> None:
    path, trunk = written(tmp_path, "vgg16", 1.0)
    export_backbone(path, tmp_path / name, layout)
    require_equal(tmp_path / name, trunk, layout)


@pytest.mark.parametrize(
    ("layout", "name"), [("torchvision", "w.pth"), ("detectron2", "w.pkl"), ("ubr", "folder")]
)
def test_an_alexnet_comes_back(tmp_path: Path, layout: Layout, name: str) -> None:
    path, trunk = written(tmp_path, "alexnet", NARROW)
    export_backbone(path, tmp_path / name, layout)
    require_equal(tmp_path / name, trunk, layout)
    with pytest.raises(CheckpointRefused):
        read_external_trunk(tmp_path / name, NARROW)  # expected: a VGG-16


@pytest.mark.parametrize(
    ("layout", "name"),
    [("torchvision", "w.pth"), ("segmentation_models_pytorch", "folder"), ("detectron2", "w.pkl")],
)
def test_one_channel_computes_the_same_on_three_equal_ones(
    tmp_path: Path, layout: Layout, name: str
) -> None:
    """Not the same tensors: the export summed them. A third of the sum each is the same sum."""
    path, trunk = written(tmp_path, "vgg16", NARROW)
    export_backbone(path, tmp_path / name, layout, in_channels=1)
    found = read_external_trunk(tmp_path / name, NARROW)
    assert found.in_channels == 1
    assert "one channel given to three" in found.words
    assert found.backbone.input_spec == SPEC
    grey = torch.randn(2, 1, 32, 40, generator=torch.Generator().manual_seed(1)).double()
    image = grey.expand(-1, 3, -1, -1)
    ours, theirs = trunk.double()(image), found.backbone.trunk.double()(image)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-6)
    first = found.backbone.trunk.state_dict()["conv1_1.weight"]
    assert torch.equal(first[:, 0], first[:, 1])
    assert torch.equal(first[:, 0], first[:, 2])


@pytest.mark.parametrize(
    ("init", "through", "flags"),
    [
        ("random", "conv5", "--init ubr --ubr"),
        ("imagenet", "conv5", "--init ubr+imagenet --ubr"),
        ("imagenet", "conv2", "--init external --external"),
        ("external", "conv5", "--init external --external"),
    ],
)
def test_the_export_names_the_arm_that_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], init: Any, through: str, flags: str
) -> None:
    path, out = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    made = Provenance(init=init, pretraining="ubr", config={"transfer_through": through})
    write_backbone(path, Backbone(Trunk("vgg16", 0.1), SPEC, made))
    assert main([str(path), str(out)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next: train_det.py {flags} {out} --coco COCO --images PNGS"
    arm = flags.split()[1]
    asked = {"external": out} if arm == "external" else {"ubr": out}
    make_start(DetConfig.model_validate({"coco": "coco", "init": arm, "width": 0.1, **asked}))


class TestFolders:
    def folder(self, tmp_path: Path) -> Path:
        path, _ = written(tmp_path, "vgg16", NARROW)
        export_backbone(path, tmp_path / "hub", "torchvision")
        return tmp_path / "hub"

    def test_a_folder_without_weights_or_with_two_is_refused(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        (folder / "model.pth").write_bytes(b"")
        with pytest.raises(CheckpointRefused, match=r"a folder with 2 of model\.safetensors"):
            read_external_trunk(folder, NARROW)
        (folder / "model.pth").unlink()
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointRefused, match=r"a folder with 0 of model\.safetensors"):
            read_external_trunk(folder, NARROW)

    def test_a_description_of_other_weights_is_refused(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"sha256": "0" * 64}))
        with pytest.raises(CheckpointRefused, match=r"not the file that config\.json describes"):
            read_external_trunk(folder, NARROW)

    def test_two_descriptions_that_disagree_are_refused(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        config = json.loads((folder / "config.json").read_text())
        config["input_spec"]["scale"] = 1.0
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointRefused, match="says two things of its input"):
            read_external_trunk(folder, NARROW)

    def test_a_config_that_is_no_json_is_refused(self, tmp_path: Path) -> None:
        folder = self.folder(tmp_path)
        (folder / "config.json").write_text("{")
        with pytest.raises(CheckpointRefused, match=r"config\.json: not JSON"):
            read_external_trunk(folder, NARROW)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trunk]:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    path, trunk = written(folder, "vgg16", NARROW)
    export_backbone(path, folder / "w.onnx", "onnx")
    return folder / "w.onnx", trunk


class TestOnnx:
    def test_its_initialisers_are_the_trunk(self, exported: tuple[Path, Trunk]) -> None:
        require_equal(*exported, "onnx")

    def test_a_graph_that_normalises_otherwise_than_it_says_is_refused(
        self, exported: tuple[Path, Trunk], tmp_path: Path
    ) -> None:
        import onnx

        model = onnx.load(exported[0])
        file = tmp_path / "w.onnx"
        stated = next(p for p in model.metadata_props if p.key == "input_spec")
        stated.value = stated.value.replace("64.0", "32.0")
        onnx.save(model, file)
        with pytest.raises(CheckpointRefused, match=r"its std is \[64\.0.*in the graph"):
            read_external_trunk(file, NARROW)

    def test_a_cut_graph_and_one_in_two_files_are_refused(
        self, exported: tuple[Path, Trunk], tmp_path: Path
    ) -> None:
        import onnx

        model = onnx.load(exported[0])
        cut = tmp_path / "cut.onnx"
        cut.write_bytes(exported[0].read_bytes()[:5000])
        with pytest.raises(CheckpointRefused, match=r"cut\.onnx: "):
            read_external_trunk(cut, NARROW)
        two = tmp_path / "two.onnx"
        onnx.save(model, two, save_as_external_data=True, size_threshold=0)
        with pytest.raises(CheckpointRefused, match="lies in another file"):
            read_external_trunk(two, NARROW)

    def test_a_scorer_gives_its_trunk(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
        from tests.converters.checkpoints import write_regressor

        path = write_regressor(tmp_path / "r.safetensors", "vgg16", NARROW, batch_norm=True)
        export_backbone(path, tmp_path / "s.onnx", "onnx-scorer")
        export_backbone(path, tmp_path / "b.safetensors", "ubr")
        found = read_external_trunk(tmp_path / "s.onnx", NARROW)
        assert (found.layout, found.prefix) == ("onnx-scorer", "")
        assert found.ignored["conv6"] == found.ignored["fc7"] == 2
        wanted = read_backbone(tmp_path / "b.safetensors").trunk.state_dict()
        state = found.backbone.trunk.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
