"""What is wrong in a weight file or in what it says of itself is one line that names both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.ubr_pretrain.test_external_trunk import arrays, named, saved
from ubr_pretrain.backbone import Provenance, read_backbone
from ubr_pretrain.checkpoint import CheckpointRefused, write_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.regressor import Regressor, read_regressor, regressor_state
from ubr_pretrain.trunk import Trunk, load_trunk

WIDTH = 0.1
MADE = Provenance(init="random")
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(5)
    return Trunk("vgg16", WIDTH)


def refusal(path: Path, *words: str, said_of: Path | None = None) -> None:
    """Require one line that begins with the file and has the words."""
    with pytest.raises(CheckpointRefused) as caught:
        read_external_trunk(path, WIDTH, IMAGENET_INPUT)
    message = str(caught.value)
    assert message.startswith(f"{said_of or path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("array", "called"),
    [
        (np.array(["a", "b"]), "str"),
        (np.array([None, 1.0], dtype=object), "object"),
        (np.zeros(2, np.longdouble), "float128"),
        (np.zeros(2, "datetime64[s]"), "datetime64"),
        (np.zeros(2, [("weight", "f4")]), "void"),
    ],
)
@pytest.mark.parametrize("name", ["features.0.weight", "features.5.bias"])
def test_C05_an_array_that_is_no_tensor_is_named(
    trunk: Trunk, tmp_path: Path, array: np.ndarray, called: str, name: str
) -> None:
    """Arrays of text, objects, dates or long doubles are named and refused."""
    content = arrays(named(trunk, "torchvision")) | {name: array}
    refusal(saved(tmp_path, content, "w.pkl"), f"{name} holds {called}", "which no tensor can")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (Tensor.to_sparse, "is stored as torch.sparse_coo, not densely"),
        (lambda t: t.flatten(1).to_sparse_csr(), "is stored as torch.sparse_csr, not densely"),
        (lambda t: t.to("meta"), "has a shape but no values"),
        (lambda t: t.to(torch.int32), "holds torch.int32, not floating-point numbers"),
        (lambda t: t.to(torch.complex64), "holds torch.complex64, not floating-point numbers"),
        (lambda t: t[:, :1].to(torch.int8), "holds torch.int8, not floating-point numbers"),
    ],
)
@pytest.mark.parametrize("layer", ["conv1_1.weight", "conv4_2.weight"])
def test_C05_a_tensor_without_plain_numbers_is_named(
    trunk: Trunk, tmp_path: Path, made: Any, words: str, layer: str
) -> None:
    """Sparse, complex, integer and empty (meta) tensors are named and refused."""
    state = named(trunk, "ubr")
    state[layer] = made(state[layer].detach())
    refusal(saved(tmp_path, state), f"{layer} {words}")
    with pytest.raises(ValueError, match=r"^here: \S+ (is|has|holds) [^\n]*$"):
        load_trunk(Trunk("vgg16", WIDTH), state, "here")


@pytest.mark.parametrize("text", [DEEP, '{"about":' * 100_000, '{"about"', "\x00"])
def test_C02_a_config_that_is_no_json_is_named(trunk: Trunk, tmp_path: Path, text: str) -> None:
    """A config.json that is no JSON, or nested 100,000 deep, is named."""
    hub = tmp_path / "hub"
    hub.mkdir()
    saved(hub, named(trunk, "torchvision"), "model.safetensors")
    (hub / "config.json").write_text(text, encoding="utf-8")
    refusal(hub, "not JSON", said_of=hub / "config.json")


def test_a_deeply_nested_json_beside_a_file_is_a_strangers(trunk: Trunk, tmp_path: Path) -> None:
    path = saved(tmp_path, named(trunk, "torchvision"))
    path.with_suffix(".json").write_text(DEEP, encoding="utf-8")
    assert read_external_trunk(path, WIDTH, IMAGENET_INPUT).layout == "torchvision"


SPEC_WORDS = IMAGENET_INPUT.model_dump_json()
WRONG = [
    ({"provenance": MADE.model_dump_json()}, "input_spec is not ours: "),
    ({"input_spec": DEEP, "provenance": "{}"}, "input_spec: not JSON"),
    ({"input_spec": SPEC_WORDS, "provenance": "made"}, "provenance: not JSON"),
    ({"input_spec": "5", "provenance": "{}"}, "input_spec is not ours: "),
    ({"input_spec": '{"scale": "abc"}', "provenance": "{}"}, "scale: Input should be a valid num"),
    ({"input_spec": '{"size_px": 8}', "provenance": "{}"}, "size_px 8: conv5 of VGG-16 needs"),
    ({"input_spec": SPEC_WORDS, "provenance": '{"init": "no"}'}, "provenance is not ours: init:"),
]


@pytest.mark.parametrize(("about", "words"), WRONG)
def test_C11_a_wrong_description_is_named_by_entry_and_rule(
    trunk: Trunk, tmp_path: Path, about: dict[str, str], words: str
) -> None:
    """A file that misdescribes its input is refused by entry and rule."""
    path = tmp_path / "w.safetensors"
    save_file(named(trunk, "torchvision"), path, about)
    refusal(path, words)


ENTRIES = {
    "arch": "vgg16",
    "width": WIDTH,
    "input_spec": IMAGENET_INPUT.model_dump(mode="json"),
    "provenance": MADE.model_dump(mode="json"),
}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"input_spec": {"scale": "abc"}}, "input_spec is not ours: scale: Input should be"),
        ({"input_spec": None}, "input_spec is not ours: "),
        ({"provenance": {"init": "no"}}, "provenance is not ours: init: "),
        ({"arch": "resnet"}, "arch 'resnet' and width 0.1; expected one of vgg16, alexnet"),
        ({"width": "abc"}, "width 'abc'; expected"),
        ({"width": 0}, "width 0; expected"),
    ],
)
def test_C11_a_wrong_entry_of_our_own_file_is_named(
    trunk: Trunk, tmp_path: Path, entry: dict[str, Any], words: str
) -> None:
    """So is a wrong entry of a file of ours."""
    path = tmp_path / "b.safetensors"
    write_checkpoint(path, ENTRIES | entry | trunk.state_dict(), "backbone")
    refusal(path, words)
    with pytest.raises(CheckpointRefused, match=r"expected|not ours"):
        read_backbone(path)


def test_C11_a_wrong_input_of_a_regressor_is_named(trunk: Trunk, tmp_path: Path) -> None:
    """And the impossible input of a regressor."""
    state = regressor_state(Regressor(trunk), IMAGENET_INPUT, MADE)
    state["input_spec"]["scale"] = "abc"
    path = tmp_path / "r.safetensors"
    write_checkpoint(path, state, "ubr")
    with pytest.raises(CheckpointRefused, match=r"input_spec is not ours: scale: ") as caught:
        read_regressor(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("width", [0.1, 0.25])
def test_without_a_width_a_file_may_have_any(tmp_path: Path, width: float) -> None:
    trunk = Trunk("vgg16", width)
    made = {"provenance": MADE.model_dump_json(), "input_spec": json.dumps({})}
    foreign, own = tmp_path / "w.safetensors", tmp_path / "b.safetensors"
    save_file(named(trunk, "torchvision"), foreign, made)
    write_checkpoint(own, ENTRIES | {"width": width} | trunk.state_dict(), "backbone")
    for path in (foreign, own):
        found = read_external_trunk(path, None).backbone.trunk
        for name, tensor in trunk.state_dict().items():
            assert torch.equal(found.state_dict()[name], tensor)
