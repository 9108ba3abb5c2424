"""Checkpoints of other versions, devices and authors: what is taken, and what is never believed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.ubr_pretrain.archives import write_toy_checkpoint
from tests.ubr_pretrain.test_external_trunk import WIDTH, named, saved
from ubr_pretrain import __version__
from ubr_pretrain.backbone import (
    Backbone,
    Provenance,
    read_backbone,
    read_imagenet_trunk,
    write_backbone,
)
from ubr_pretrain.checkpoint import (
    CheckpointRefused,
    _digest,
    _metadata,
    checkpoint_kind,
    read_checkpoint,
    write_checkpoint,
)
from ubr_pretrain.ct import IMAGENET_INPUT
from ubr_pretrain.external_trunk import read_external_trunk
from ubr_pretrain.pretrained import SCORER, WEIGHTS_FOLDER
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.trunk import Trunk

MADE = Provenance(init="random", pretraining="ubr")


@pytest.fixture(scope="module")
def trunk() -> Trunk:
    torch.manual_seed(5)
    return Trunk("vgg16", WIDTH)


def rewritten(source: Path, target: Path, **changes: str) -> Path:
    """Write a file of ours with other words in it, and the checksum that fits them."""
    tensors = load_file(source)
    words = {k: v for k, v in (_metadata(source) | changes).items() if k != "sha256" and v}
    save_file(tensors, target, words | {"sha256": _digest(tensors, words)})
    return target


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "backbone."])
def test_M18_C08_prefixes_of_trainers_are_taken_off_and_named(
    trunk: Trunk, tmp_path: Path, prefix: str
) -> None:
    """All 26 tensors are read and the prefix is named; torch loads none of them with strict=False,
    and does not say so."""
    state = named(trunk, "torchvision", prefix)
    with torch.device("meta"):
        theirs = torchvision.models.vgg16()
    assert theirs.load_state_dict(state, strict=False).unexpected_keys == list(state)
    found = read_external_trunk(saved(tmp_path, state), WIDTH, IMAGENET_INPUT)
    assert found.words == f"torchvision layout under '{prefix}'"
    for name, tensor in trunk.state_dict().items():
        assert torch.equal(found.backbone.trunk.state_dict()[name], tensor)


def test_M18_a_prefix_that_a_reader_does_not_know_is_never_an_empty_start(
    trunk: Trunk, tmp_path: Path
) -> None:
    """--imagenet-weights reads torchvision's own names alone: 26 tensors or a refusal."""
    path = saved(tmp_path, named(trunk, "torchvision", "module."))
    with pytest.raises(CheckpointRefused, match="lacks 26 of 26 trunk tensors"):
        read_imagenet_trunk(path, "vgg16", WIDTH)


def test_C09_a_file_of_a_newer_layout_says_which_version_made_it(tmp_path: Path) -> None:
    """Refused: layout '2' was made by version '9.0.0'; this is version X, which reads layout 1."""
    newer = rewritten(write_toy_checkpoint(tmp_path / "a"), tmp_path / "b", format="2",
                      made_by="9.0.0")  # fmt: skip
    with pytest.raises(CheckpointRefused) as refusal:
        read_regressor(newer)
    said = f"layout '2' was made by version '9.0.0'; this is version {__version__}, which reads"
    assert said in str(refusal.value)


@pytest.mark.parametrize("layout", ["0", "-1", "one", "1.0", "9" * 5000])
def test_C09_a_layout_that_never_was_is_refused(tmp_path: Path, layout: str) -> None:
    """Refused with the layout found, in one short line."""
    odd = rewritten(write_toy_checkpoint(tmp_path / "a"), tmp_path / "b", format=layout)
    with pytest.raises(CheckpointRefused, match="was made by version") as refusal:
        read_regressor(odd)
    assert len(str(refusal.value)) < 500


def test_C09_files_of_the_first_version_are_read_on(tmp_path: Path) -> None:
    """A file without the version that made it, as the first ones were written, is read as ever."""
    source = write_toy_checkpoint(tmp_path / "a")
    assert _metadata(source)["made_by"] == __version__
    older = rewritten(source, tmp_path / "b", made_by="")
    assert "made_by" not in _metadata(older)
    ours, again = read_regressor(source), read_regressor(older)
    assert again.provenance == ours.provenance
    for name, tensor in ours.regressor.state_dict().items():
        assert torch.equal(again.regressor.state_dict()[name], tensor)
    assert checkpoint_kind(WEIGHTS_FOLDER / SCORER) == "ubr"


def test_C16_weights_that_were_saved_on_a_gpu_are_read_on_a_cpu(
    trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch file of CUDA tensors is read onto the CPU; ours name no device at all."""
    monkeypatch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
    path = saved(tmp_path, named(trunk, "torchvision"))
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    again = read_external_trunk(path, WIDTH, IMAGENET_INPUT).backbone.trunk.state_dict()
    for name, tensor in trunk.state_dict().items():
        assert again[name].device.type == "cpu"
        assert torch.equal(again[name], tensor)
    file = write_toy_checkpoint(tmp_path / "ours.safetensors")
    assert b"cuda" not in file.read_bytes()


@pytest.mark.parametrize("writer", ["safetensors", "torch"])
def test_M16_C03_a_flipped_bit_loads_elsewhere_and_is_refused_here(
    tmp_path: Path, writer: str
) -> None:
    """E-CKPT-HASH; safetensors and torch load the same flipped bit with weights that differ."""
    weights = {"w": torch.arange(64, dtype=torch.float32)}
    path = tmp_path / "w"
    if writer == "torch":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    content = bytearray(path.read_bytes())
    at = content.index(weights["w"].numpy().tobytes()) + 101
    content[at] ^= 0x40
    path.write_bytes(content)
    loaded = torch.load(path, weights_only=True) if writer == "torch" else load_file(path)
    assert not torch.equal(loaded["w"], weights["w"])

    ours = tmp_path / "ours"
    write_checkpoint(ours, weights, "ubr")
    content = bytearray(ours.read_bytes())
    content[content.index(weights["w"].numpy().tobytes()) + 101] ^= 0x40
    ours.write_bytes(content)
    with pytest.raises(CheckpointRefused, match=r"ours: E-CKPT-HASH"):
        read_checkpoint(ours, "ubr")


def entries_of(path: Path) -> list[list[Any]]:
    return json.loads(_metadata(path)["state"])["$dict"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 1e9}, "describes a network that cannot be|is .*not"),
        ({"width": 40.0}, "conv1_1.weight is"),
        ({"width": -1}, "describe no regressor"),
        ({"width": "wide"}, "describe no regressor"),
        ({"arch": "resnet50"}, "'resnet50'.* describe no regressor"),
        ({"arch": None}, "describe no regressor"),
        ({"input_spec": {"$dict": [["size_px", 10**9]]}}, "size_px 1000000000"),
        ({"provenance": []}, "provenance is not ours"),
        ({"regressor": 5}, "describe no regressor"),
        ({"regressor": {"$dict": []}}, "lacks 30 of 30 tensors"),
        ({"regressor": {"$tensor": "absent"}}, "its state is not what this project writes"),
        ({"regressor": {"$other": 1}}, "its state is not what this project writes"),
    ],
)
def test_N10_a_checkpoint_whose_words_do_not_fit_its_tensors_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    """Refused in one line before room is made, though its checksum is right: a file that claims a
    network a billion channels wide, of another kind, or with entries missing or of another type."""
    source = write_toy_checkpoint(tmp_path / "a")
    entries = [[key, changes.get(key, value)] for key, value in entries_of(source)]
    odd = rewritten(source, tmp_path / "b", state=json.dumps({"$dict": entries}))
    with pytest.raises(CheckpointRefused, match=said) as refusal:
        read_regressor(odd)
    assert "\n" not in str(refusal.value)


@settings(max_examples=40)
@given(state=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["$dict", "$tensor", "a"]), inner, max_size=2), max_leaves=8,
))  # fmt: skip
def test_N10_any_state_in_a_sound_file_is_a_dictionary_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, state: Any
) -> None:
    """Whatever JSON a file with a right checksum holds, reading it gives entries or a refusal."""
    top = tmp_path_factory.mktemp("state")
    write_checkpoint(top / "a", {"w": torch.zeros(1)}, "ubr")
    odd = rewritten(top / "a", top / "b", state=json.dumps(state))
    outcome: Any
    try:
        outcome = read_checkpoint(odd, "ubr")
    except CheckpointRefused as refusal:
        outcome = str(refusal)
    assert isinstance(outcome, dict) or "\n" not in outcome


def test_N10_a_backbone_that_claims_another_width_is_refused(trunk: Trunk, tmp_path: Path) -> None:
    """The same for an exported trunk: the tensors decide, and no room is made for the claim."""
    source = tmp_path / "a"
    write_backbone(source, Backbone(trunk, IMAGENET_INPUT, MADE))
    for width in (1e6, 8, 8.0, True, None):
        entries = [[k, width if k == "width" else v] for k, v in entries_of(source)]
        odd = rewritten(source, tmp_path / "b", state=json.dumps({"$dict": entries}))
        with pytest.raises(CheckpointRefused, match="b: "):
            read_backbone(odd)


def test_N10_deeply_nested_words_are_refused(tmp_path: Path) -> None:
    """A state nested 100,000 deep ends no process."""
    source = write_toy_checkpoint(tmp_path / "a")
    odd = rewritten(source, tmp_path / "b", state="[" * 100_000 + "]" * 100_000)
    with pytest.raises(CheckpointRefused, match="its state is not"):
        read_checkpoint(odd, "ubr")
