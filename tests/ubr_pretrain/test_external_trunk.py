"""A VGG-16 of others is read whole from any layout that is known, or refused by name."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor

from converters.model_card import Exported
from converters.weight_files import export_files, write_companions, write_weights
from ubr_pretrain.backbone import Backbone, Provenance
from ubr_pretrain.checkpoint import CheckpointRefused, write_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.layouts import Layout, tensor_names
from ubr_pretrain.trunk import Trunk

WIDTH = 0.1
OURS = InputSpec(std=(64.0, 64.0, 64.0), fov_mm=512.0)
State = dict[str, Any]


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(5)
    return Trunk("vgg16", WIDTH)


def named(trunk: Trunk, layout: Layout, prefix: str = "") -> dict[str, Tensor]:
    names = tensor_names("vgg16", layout)
    return {f"{prefix}{names[k]}": tensor for k, tensor in trunk.state_dict().items()}


def saved(folder: Path, content: object, name: str = "w.pth") -> Path:
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(content, path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, path)
    return path


def read(path: Path) -> Any:
    return read_external_trunk(path, WIDTH, IMAGENET_INPUT)


def arrays(tensors: dict[str, Tensor]) -> State:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


KNOWN: list[tuple[str, Callable[[Trunk], object], str, str]] = [
    ("w.pth", lambda t: named(t, "torchvision"), "torchvision", ""),
    ("w.safetensors", lambda t: named(t, "torchvision"), "torchvision", ""),
    ("w.pth", lambda t: {"state_dict": named(t, "torchvision")}, "torchvision", ""),
    (
        "w.pth",
        lambda t: {"epoch": 3, "model_state_dict": named(t, "torchvision", "module.")},
        "torchvision",
        "module.",
    ),
    ("w.pth", lambda t: named(t, "torchvision", "encoder."), "torchvision", "encoder."),
    ("w.pth", lambda t: named(t, "torchvision", "backbone."), "torchvision", "backbone."),
    (
        "w.pth",
        lambda t: {"state_dict": named(t, "torchvision", "module.encoder.")},
        "torchvision",
        "module.encoder.",
    ),
    ("w.pth", lambda t: named(t, "ubr"), "ubr", ""),
    ("w.safetensors", lambda t: named(t, "ubr", "module."), "ubr", "module."),
    ("w.pth", lambda t: {"model": named(t, "detectron2"), "iteration": 9}, "detectron2", ""),
    ("w.pkl", lambda t: {"model": arrays(named(t, "detectron2"))}, "detectron2", ""),
    ("w.safetensors", lambda t: named(t, "detectron2"), "detectron2", ""),
]


@pytest.mark.parametrize(("name", "content", "layout", "prefix"), KNOWN)
def test_C08_every_known_layout_and_prefix_gives_the_same_trunk(
    trunk: Trunk,
    tmp_path: Path,
    name: str,
    content: Callable[[Trunk], object],
    layout: str,
    prefix: str,
) -> None:
    """Every known layout and prefix gives the same trunk; which one it was is said."""
    found = read(saved(tmp_path, content(trunk), name))
    assert (found.layout, found.prefix, found.ignored) == (layout, prefix, {})
    kept = found.words.partition(", ignored: ")[0]
    assert kept == f"{layout} layout" + (f" under '{prefix}'" if prefix else "")
    assert found.backbone.input_spec == IMAGENET_INPUT
    assert found.backbone.provenance == Provenance(init="external")
    for key, tensor in trunk.state_dict().items():
        assert torch.equal(found.backbone.trunk.state_dict()[key], tensor)


def test_torchvisions_own_vgg16_is_read_and_its_classifier_counted(tmp_path: Path) -> None:
    with torch.device("meta"):  # its names and shapes; the values of a full classifier are 500 MB
        state = torchvision.models.vgg16().state_dict()
    assert len(state) == 32
    for number, (name, tensor) in enumerate(state.items()):
        small = name.startswith("classifier.")
        state[name] = torch.full((1,) if small else tensor.shape, float(number))
    found = read_external_trunk(saved(tmp_path, state), 1.0, IMAGENET_INPUT)
    assert found.words == "torchvision layout, ignored: 6 of classifier"
    for number, (_, tensor) in enumerate(found.backbone.trunk.state_dict().items()):
        assert torch.all(tensor == number)


def test_C06_heads_beside_and_behind_the_prefix_are_counted_by_name(
    trunk: Trunk, tmp_path: Path
) -> None:
    """Heads beside and behind the trunk are ignored, counted by name and told."""
    heads = {
        "backbone.classifier.0.weight": torch.zeros(2),
        "roi_heads.box.weight": torch.zeros(2),
        "roi_heads.box.bias": torch.zeros(2),
    }
    found = read(saved(tmp_path, named(trunk, "torchvision", "backbone.") | heads))
    assert found.ignored == {"classifier": 1, "roi_heads": 2}


def test_C06_entries_beside_the_weights_are_named_and_ignored(trunk: Trunk, tmp_path: Path) -> None:
    """An optimiser's state, another (averaged) set of weights, a number of epochs, at any depth,
    are named and ignored; of hundreds the first twelve and how many more."""
    weights = named(trunk, "torchvision")
    for content, beside in (
        ({"model": weights, "optimizer": {"state": {}}, "epoch": 3}, "epoch, optimizer"),
        ({"state_dict": weights, "ema": dict(weights), "a\nb": 1}, r"a\nb, ema"),
        ({"model": {"state_dict": weights, "meta": {}}, "scaler": None}, "scaler, meta"),
        (weights | {"model_ema": dict(weights)}, "model_ema"),
        ({"model": weights} | {f"x{i:03}": i for i in range(300)}, "x010, x011, 288 more"),
    ):
        found = read(saved(tmp_path, content))
        assert found.words.startswith("torchvision layout, ignored: ")
        assert found.words.endswith(f" {beside}"), found.words
        first = trunk.state_dict()["conv1_1.weight"]
        assert torch.equal(found.backbone.trunk.state_dict()["conv1_1.weight"], first)
    heads = weights | {"classifier.0.weight": torch.zeros(2)}
    found = read(saved(tmp_path, {"model": heads, "epoch": 3}))
    assert found.words == "torchvision layout, ignored: 1 of classifier, epoch"


def test_half_precision_becomes_the_same_values_in_float32(trunk: Trunk, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in named(trunk, "torchvision").items()}
    weight = read(saved(tmp_path, half)).backbone.trunk.state_dict()["conv4_1.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, trunk.state_dict()["conv4_1.weight"].half().float())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pkl"])
@pytest.mark.parametrize("layout", ["ubr", "torchvision", "detectron2"])
def test_our_own_export_says_its_input_and_how_it_was_made(
    trunk: Trunk, tmp_path: Path, layout: Layout, name: str
) -> None:
    if (layout, name) not in {
        ("ubr", "w.safetensors"),
        ("torchvision", "w.safetensors"),
        ("torchvision", "w.pth"),
        ("detectron2", "w.pkl"),
    }:
        return
    made = Provenance(init="random", pretraining="ubr", iterations=7)
    exported = Exported(Backbone(trunk, OURS, made), layout)
    files = export_files(tmp_path / name, layout)
    write_weights(files.weights, exported)
    write_companions(files, exported, title="trunk")
    found = read_external_trunk(tmp_path / name, WIDTH)
    assert found.words == f"{layout} layout"
    assert found.backbone.input_spec == OURS
    assert found.backbone.provenance == made
    assert read_external_trunk(tmp_path / name, WIDTH, OURS).backbone.input_spec == OURS
    with pytest.raises(CheckpointRefused, match="says that its input was"):
        read_external_trunk(tmp_path / name, WIDTH, IMAGENET_INPUT)


def test_C11_without_a_word_on_its_input_the_refusal_says_what_to_pass(
    trunk: Trunk, tmp_path: Path
) -> None:
    """A file that does not say its input is refused with the flags that state it."""
    with pytest.raises(CheckpointRefused, match=r"w\.pth: .*pass --external_input imagenet"):
        read_external_trunk(saved(tmp_path, named(trunk, "torchvision")), WIDTH)


def test_somebody_elses_json_beside_it_says_nothing(trunk: Trunk, tmp_path: Path) -> None:
    path = saved(tmp_path, named(trunk, "torchvision"))
    for text in ("[1, 2]", "not json", '{"input_spec": {"scale": 1.0}}'):
        path.with_suffix(".json").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointRefused, match=r"pass --external_input"):
            read_external_trunk(path, WIDTH)


class TestRefusals:
    def refused(self, folder: Path, content: object, message: str, name: str = "w.pth") -> None:
        path = saved(folder, content, name)
        with pytest.raises(CheckpointRefused, match=message) as refusal:
            read(path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert "\n" not in str(refusal.value)

    def test_C07_the_first_missing_tensor_is_named_as_the_file_names_it(
        self, trunk: Trunk, tmp_path: Path
    ) -> None:
        """Refused with how many are missing and the first, under the file's own name for it."""
        state = named(trunk, "torchvision", "module.")
        del state["module.features.19.bias"]
        self.refused(tmp_path, state, r"lacks 1 of 26 .* first module\.features\.19\.bias")

    def test_C06_an_unknown_tensor_is_named(self, trunk: Trunk, tmp_path: Path) -> None:
        """A tensor that is neither of the trunk nor of a head behind it is named and refused."""
        state = named(trunk, "torchvision") | {"features.30.weight": torch.zeros(1)}
        self.refused(tmp_path, state, r"features\.30\.weight is no tensor of a VGG-16")
        state = named(trunk, "ubr") | {"aux.weight": torch.zeros(1)}
        self.refused(tmp_path, state, r"aux\.weight is no tensor of a VGG-16")

    def test_C05_a_misshapen_tensor_is_named_with_both_shapes(
        self, trunk: Trunk, tmp_path: Path
    ) -> None:
        """Refused with both shapes (a conv1 of one channel is given to three and told; of two
        it is refused)."""
        state = named(trunk, "torchvision")
        state["features.0.weight"] = state["features.0.weight"][:, :2]
        self.refused(tmp_path, state, r"conv1_1\.weight is \(8, 2, 3, 3\), .*\(8, 3, 3, 3\)")

    def test_C10_a_tensor_that_is_not_finite(self, trunk: Trunk, tmp_path: Path) -> None:
        """Refused; the tensor is named."""
        state = {k: t.clone() for k, t in named(trunk, "torchvision").items()}
        state["features.28.bias"][3] = float("nan")
        self.refused(tmp_path, state, r"conv5_3\.bias holds values that are not finite")

    def test_C05_whole_numbers_are_no_weights(self, trunk: Trunk, tmp_path: Path) -> None:
        """Whole numbers are no weights."""
        state = named(trunk, "torchvision")
        state["features.5.weight"] = state["features.5.weight"].to(torch.int8)
        self.refused(tmp_path, state, r"conv2_1\.weight holds torch\.int8, not floating-point")

    def test_C10_a_number_beyond_float32(self, trunk: Trunk, tmp_path: Path) -> None:
        """A number beyond float32 is one that is not finite."""
        state = {k: t.double() for k, t in named(trunk, "torchvision").items()}
        state["features.5.bias"][0] = 1e60
        self.refused(tmp_path, state, r"conv2_1\.bias holds values that are not finite")

    @pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w.safetensors"])
    def test_C02_a_cut_file(self, trunk: Trunk, tmp_path: Path, name: str) -> None:
        """A cut .pth, .pkl or .safetensors is refused in one line with its name; a .safetensors
        with how many bytes of how many are there, a .pth with how many."""
        content = named(trunk, "torchvision")
        path = saved(tmp_path, arrays(content) if name == "w.pkl" else content, name)
        whole = path.read_bytes()
        for kept in (10, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:kept])
            with pytest.raises(CheckpointRefused, match=name) as refusal:
                read(path)
            line = str(refusal.value)
            assert "\n" not in line
            if name == "w.safetensors":
                of = f"{kept} of {len(whole)} bytes" if kept > 10 else "10 bytes, within its header"
                assert f"cut off after {of}" in line
            elif name == "w.pth":
                assert f"cut off after {kept} bytes?" in line

    @pytest.mark.parametrize("end", ["Infinity", "NaN", "1e999", "1" * 400, "[]", '"1"', "null"])
    def test_C02_a_header_with_odd_ends(self, trunk: Trunk, tmp_path: Path, end: str) -> None:
        """So is a .safetensors whose header states ends that no tensor has."""
        path = saved(tmp_path, named(trunk, "torchvision"), "w.safetensors")
        whole = path.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        ends, odd = rb"(offsets.:.\d+,)\d+", rb"\g<1>" + end.encode()
        header = re.sub(ends, odd, whole[8 : 8 + size], count=1)
        path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])
        with pytest.raises(
            CheckpointRefused, match=r"w\.safetensors: not a whole safetensors file"
        ):
            read(path)

    @pytest.mark.parametrize(
        ("arch", "message"),
        [
            ("vgg16_bn", "has batch norms"),
            ("vgg19", r"is no tensor of a VGG-16 .*; expected 13 convolutions, found 16"),
            ("alexnet", r"is no tensor of a VGG-16 .*; expected 13 convolutions, found 5"),
            ("vgg11", r"is no tensor of a VGG-16 .*; expected 13 convolutions, found 8"),
            ("vgg13", r"is no tensor of a VGG-16 .*; expected 13 convolutions, found 10"),
            ("resnet18", r"no known layout of a VGG-16: 0 tensors are called features\.0"),
        ],
    )
    def test_C04_another_architecture(self, tmp_path: Path, arch: str, message: str) -> None:
        """VGG-11, 13, 19, with batch norms, AlexNet and ResNet are refused: expected 13
        convolutions, found how many, or what else tells them apart."""
        with torch.device("meta"):
            model = getattr(torchvision.models, arch)()
        state = {k: torch.zeros(()).expand(v.shape) for k, v in model.state_dict().items()}
        self.refused(tmp_path, state, message)

    def test_a_deeper_or_shallower_vgg_in_our_names(self, trunk: Trunk, tmp_path: Path) -> None:
        deeper = named(trunk, "ubr") | {"conv3_4.weight": torch.zeros(8, 8, 3, 3)}
        self.refused(tmp_path, deeper, r"conv3_4\.weight is no tensor of .*, found 14")
        shallower = {k: t for k, t in named(trunk, "ubr").items() if "_3." not in k}
        self.refused(tmp_path, shallower, r"lacks 6 of 26 trunk tensors .* first conv3_3\.weight")

    def test_two_trunks_in_one_file(self, trunk: Trunk, tmp_path: Path) -> None:
        state = named(trunk, "torchvision", "student.") | named(trunk, "torchvision", "teacher.")
        self.refused(tmp_path, state, "2 tensors are called features.0.weight")

    def test_tensors_where_nobody_knows_to_look(self, trunk: Trunk, tmp_path: Path) -> None:
        self.refused(tmp_path, {"ema": named(trunk, "ubr")}, r"not one of .* \(it holds ema\)")
        both = {"model": named(trunk, "ubr"), "state_dict": named(trunk, "ubr")}
        self.refused(tmp_path, both, r"it holds model, state_dict")
        self.refused(tmp_path, [torch.zeros(1)], "holds a list, not tensors by name")

    def test_C01_code_is_not_executed(self, tmp_path: Path) -> None:
        """A .pth and a .pkl with code in them are refused; it has not run."""
        marker = tmp_path / "executed"

        class Malice:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (marker,)

        for name in ("w.pth", "w.pkl"):
            path = saved(tmp_path, {"model": {"conv1_1.weight": Malice()}}, name)
            with pytest.raises(CheckpointRefused, match=name):
                read(path)
        assert not marker.exists()

    @pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w.safetensors", "w.onnx"])
    def test_C02_absent_empty_and_html_files(self, tmp_path: Path, name: str) -> None:
        """Absent and empty files, web pages and Git LFS pointers in the place of weights are
        refused by name, each as what it is."""
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 528\n"
        for content, word in (
            (None, "no such file"),
            (b"", "holds no(thing| tensors)"),
            (b"<html>404</html>", "looks like a web page"),
            (b"\n<!DOCTYPE html>", "looks like a web page"),
            (pointer, "looks like a Git LFS pointer; fetch the file itself"),
        ):
            if content is not None:
                (tmp_path / name).write_bytes(content)
            with pytest.raises(CheckpointRefused, match=rf"{name}: .*{word}"):
                read(tmp_path / name)

    def test_a_checkpoint_of_ours_that_is_no_backbone(self, tmp_path: Path) -> None:
        path = tmp_path / "d.safetensors"
        write_checkpoint(path, {"iteration": 1}, "detector")
        with pytest.raises(CheckpointRefused, match="is a 'detector' checkpoint; export its trunk"):
            read(path)

    def test_another_width(self, trunk: Trunk, tmp_path: Path) -> None:
        path = saved(tmp_path, named(trunk, "torchvision"))
        with pytest.raises(CheckpointRefused, match=r"vgg16 of width 0\.25 needs"):
            read_external_trunk(path, 0.25, IMAGENET_INPUT)
