"""A card says what the weights are, in the Hub's words; its code is run as it stands."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from converters.export_backbone import LICENSES, main
from converters.model_card import Exported, model_card
from converters.verified_export import export_backbone
from tests.converters.checkpoints import SPEC, write_regressor
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.network_input import normalise
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.trunk import Trunk

PATH = re.compile(r"(?<![\w:/.])/(?:[\w.-]+/)+[\w.-]*")
"""An absolute path of this machine."""


def code_of(card: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text("utf-8"), re.DOTALL)
    return code


def random_hu(*shape: int) -> torch.Tensor:
    """Slices far wider than any window, other ones in every channel; the same on every call."""
    return torch.randint(-1024, 1500, shape, generator=torch.Generator().manual_seed(1)).float()


def run_card(card: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Run the code of a card in its folder, and return the names that it leaves.

    The empty slices of the card are replaced by ``random_hu``, of the same shape.
    """
    monkeypatch.chdir(card.parent)
    code = code_of(card)
    code, tensors = re.subn(r"^hu = torch\.zeros\(", "hu = random_hu(", code, flags=re.M)
    empty = r"^hu = np\.zeros\(\((.*)\), np\.float32\)$"
    code, arrays = re.subn(empty, r"hu = random_hu(\1).numpy()", code, flags=re.M)
    assert tensors + arrays == 1
    names: dict[str, object] = {"random_hu": random_hu}
    with torch.no_grad():
        exec(compile(code, str(card), "exec"), names)
    return names


@torch.no_grad()
def features_of(trunk: nn.Module, in_channels: int = 3, spec: InputSpec = SPEC) -> torch.Tensor:
    """What the trunk of three channels makes of the slices that ``run_card`` gives to a card."""
    hu = random_hu(3, in_channels, spec.size_px, spec.size_px)
    assert float(hu.min()) < spec.window.lower_hu
    assert float(hu.max()) > spec.window.upper_hu
    return trunk.eval()(normalise(hu.expand(-1, 3, -1, -1), spec))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "vgg16", 0.125, batch_norm=True)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "alexnet", 0.25, batch_norm=False)


@pytest.mark.parametrize(
    ("layout", "name", "in_channels"),
    [
        ("ubr", "trunk.safetensors", 3),
        ("ubr", "hub", 3),
        ("torchvision", "trunk.safetensors", 3),
        ("torchvision", "trunk.pth", 1),
        ("torchvision", "hub", 1),
    ],
)
@pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
def test_the_code_of_a_card_gives_the_features_of_the_checkpoint(
    arch, layout, name, in_channels, source, alexnet, tmp_path, monkeypatch
):
    checkpoint = source if arch == "vgg16" else alexnet
    export = export_backbone(checkpoint, tmp_path / name, layout, in_channels=in_channels)
    card, *_ = export.files
    names = run_card(card, monkeypatch)
    trunk = read_regressor(checkpoint).regressor.trunk
    assert_close(names["features"], features_of(trunk, in_channels))


@pytest.mark.parametrize("layout", ["ubr", "torchvision", "timm"])
def test_every_channel_has_its_own_mean_and_std(layout, tmp_path, monkeypatch):
    if layout == "timm":
        pytest.importorskip("timm", reason="timm is not installed")
    spec = InputSpec(mean=(20.0, 50.0, 90.0), std=(30.0, 60.0, 120.0), size_px=32)
    width = 1.0 if layout == "timm" else 0.125
    source = write_regressor(
        tmp_path / "b.safetensors", "vgg16", width, batch_norm=False, spec=spec
    )
    card, *_ = export_backbone(source, tmp_path / "w.safetensors", layout).files
    names = run_card(card, monkeypatch)
    trunk = read_regressor(source).regressor.trunk
    assert_close(names["features"], features_of(trunk, spec=spec))
    swapped = random_hu(3, 3, 32, 32).flip(1)
    with torch.no_grad():
        theirs = trunk.eval()(normalise(swapped, spec))
    with pytest.raises(AssertionError):  # a swap of channels is seen
        assert_close(names["features"], theirs)


@pytest.mark.parametrize("name", ["trunk.safetensors", "hub"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_segmentation_models_pytorch_loads_the_encoder_strictly(
    name, in_channels, source, tmp_path, monkeypatch
):
    pytest.importorskip("segmentation_models_pytorch", reason="it is not installed")
    layout = "segmentation_models_pytorch"
    export = export_backbone(source, tmp_path / name, layout, in_channels=in_channels)
    card, *_ = export.files
    names = run_card(card, monkeypatch)
    trunk = read_regressor(source).regressor.trunk
    assert_close(names["features"], features_of(trunk, in_channels))
    encoder = names["model"].encoder.state_dict()
    assert [row.exported_name for row in export.tensors] == list(encoder)
    assert encoder["features.0.weight"].shape == (8, in_channels, 3, 3)
    assert names["model"](names["x"]).shape == (3, 1, 64, 64)


def test_a_folder_is_what_the_hub_takes(source, tmp_path):
    hub = pytest.importorskip("huggingface_hub", reason="it is not installed")
    export_backbone(source, tmp_path / "hub", "torchvision", weights_license="cc-by-4.0")
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    card = hub.ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "torchvision"
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert "body-part-regression" in card.data.tags
    assert hub.metadata_load(tmp_path / "hub" / "README.md") == card.data.to_dict()
    for path in (tmp_path / "hub").iterdir():
        hub.CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path)
    config = json.loads((tmp_path / "hub" / "config.json").read_text("utf-8"))
    assert InputSpec.model_validate(config["input_spec"]) == SPEC
    assert config["provenance"]["iterations"] == 7
    assert config["license"] == "cc-by-4.0"


def test_a_licence_nobody_stated_is_said_openly_and_an_unknown_one_refused(
    source, tmp_path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(source), str(tmp_path / "a.safetensors")]) == 0
    card = (tmp_path / "a.safetensors.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown" == LICENSES[0]
    assert "licence | not stated: ask whoever exported it" in card
    with pytest.raises(SystemExit) as stop:
        main([str(source), str(tmp_path / "b.safetensors"), "--license", "apache"])
    assert stop.value.code == 2
    assert "invalid choice: 'apache'" in capsys.readouterr().err


def test_no_path_of_this_machine_stands_in_a_card_or_a_description(source, tmp_path):
    for layout in ("ubr", "torchvision", "detectron2", "segmentation_models_pytorch"):
        export_backbone(source, tmp_path / layout, layout)
        for name in ("README.md", "config.json"):
            text = (tmp_path / layout / name).read_text("utf-8")
            assert PATH.findall(re.sub(r"https?://\S+", "", text)) == []
            assert str(tmp_path) not in text


@pytest.mark.parametrize("layout", ["ubr", "torchvision", "detectron2", "onnx"])
def test_no_name_of_a_subject_leaves_with_the_weights(layout, tmp_path):
    if layout == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    first = Provenance(init="random", config={"anchors": ["/home/MILLER/a.csv"], "seed": 1})
    made = Provenance(
        init="random",
        pretraining="ubr",
        config={"holdout": ["MILLER_1950"], "seed": 3, "first_stage": first.model_dump()},
    )
    backbone = Backbone(Trunk("alexnet", 0.125), SPEC, made)
    write_backbone(tmp_path / "b.safetensors", backbone)
    export = export_backbone(tmp_path / "b.safetensors", tmp_path / "hub", layout)
    assert len(export.files) == 3
    for file in export.files:
        assert b"MILLER" not in file.read_bytes()
    kept = json.loads((tmp_path / "hub" / "config.json").read_text("utf-8"))["provenance"]["config"]
    assert (kept["seed"], kept["first_stage"]["config"]["seed"]) == (3, 1)


def test_a_card_says_how_the_weights_were_made(tmp_path):
    made = Provenance(
        init="imagenet",
        pretraining="ubr",
        iterations=1500,
        num_volumes=420,
        data_sha256="ab" * 32,
        folded_batch_norm=True,
    )
    spec = IMAGENET_INPUT.model_copy(update={"fov_mm": 400.0})
    backbone = Backbone(Trunk("vgg16", 0.125), spec, made)
    for layout in ("detectron2", "mmdetection", "timm"):
        card = model_card(Exported(backbone, layout), "w.pth", "ff", title="T", folder=False)
        for words in (
            "from ImageNet weights",
            "1500 iterations on 420 CT volumes",
            "ab" * 32,
            "folded into the convolutions",
            "128 pixels that cover 400 mm",
            "Not a medical device",
        ):
            assert words in card
    as_it_is = Exported(Backbone(Trunk("vgg16", 0.125), spec, Provenance(init="random")), "ubr")
    card = model_card(as_it_is, "w.safetensors", "ff", title="T", folder=False)
    assert "as initialised" in card
    assert "| pretrained | no |" in card


def test_the_templates_leave_no_trace_of_themselves(tmp_path):
    backbone = Backbone(Trunk("alexnet", 0.25), SPEC, Provenance(init="external"))
    for layout in ("ubr", "torchvision", "detectron2", "mmdetection", "onnx"):
        for channels in (1, 3):
            exported = Exported(backbone, layout, channels)
            card = model_card(exported, "w.safetensors", "ff", title="T", folder=True)
            assert not re.search(r"{[{%#]|[%#}]}(?!\))|None|Undefined", card), layout
            assert "\n\n\n" not in card
            compile(re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0], layout, "exec")
