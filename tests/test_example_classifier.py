"""What both examples read, and the classifier: right, and a wrong file is one line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from converters.export_backbone import main as export_backbone
from tests.test_examples import ROOT, example
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import network_input
from ubr_pretrain.phantom_volumes import write_cohort
from ubr_pretrain.slice_classes import BODY_PARTS
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.volumes import read_volume


def test_a_seed_draws_the_same_slices_whatever_the_start():
    module = example("classify_slices")
    drawn: list[list[float]] = []
    for start in (0, 1):
        torch.manual_seed(start)
        net = module.build_vgg16(0.125)
        drawn.append([])
        net.register_forward_pre_hook(
            lambda _, inputs, seen=drawn[-1]: seen.append(inputs[0][:, 0, 0, 0].tolist())
        )
        x = torch.arange(40.0)[:, None, None, None].expand(-1, 3, 32, 32)
        before = [tensor.clone() for tensor in net.parameters()]
        module.fine_tune(net, x, torch.arange(40) % 5, seed=3, iterations=2)
        assert not any(map(torch.equal, before, net.parameters()))  # all layers are trained
    assert drawn[0] == drawn[1]
    rng = np.random.default_rng(3)
    assert drawn[0] == [rng.integers(40, size=16).tolist() for _ in range(2)]


def test_the_classifiers_accuracy_is_a_count_by_hand():
    module = example("classify_slices")
    net = torch.nn.Flatten()  # the largest of five pixels
    x = torch.eye(5)[[0, 3, 4, 1] * 20][:, :, None, None]
    assert module.accuracy(net, x, torch.tensor([0, 3, 2, 1] * 20)) == 0.75


def labelled(folder: Path, indices: Sequence[int]) -> Path:
    """Write one scan of four slices of 30 mm, and a table that names some of them."""
    assert len(list(write_cohort(folder, 1, 3, 32, 0, "abdomen", 30.0))) == 1
    (scan,) = folder.glob("*.nii.gz")
    name = scan.name.removesuffix(".nii.gz")
    rows = "".join(f"{name},{index},abdomen\n" for index in indices)
    table = folder / "slice_classes.csv"
    table.write_text(f"volume,index_sup_to_inf,class\n{rows}", encoding="utf-8")
    return scan


def test_labelled_slices_are_those_that_the_table_names(tmp_path: Path):
    volume = read_volume(labelled(tmp_path, [2, 0]))
    spec = InputSpec(size_px=32)  # the scan's own grid
    x, y = example("labelled_scans").read_slices(tmp_path, spec, torch.device("cpu"))
    hu = torch.from_numpy(volume.hu[[2, 0]]).float()
    torch.testing.assert_close(x, network_input(hu, spec))
    assert [BODY_PARTS[k] for k in y] == ["abdomen", "abdomen"]


@pytest.mark.parametrize("layout", ["torchvision", "detectron2"])
@pytest.mark.parametrize("width", [0.1, 0.25])
def test_an_exported_trunk_of_any_width_and_layout_is_read(tmp_path: Path, layout, width):
    trunk, spec = Trunk(width=width), InputSpec(fov_mm=400.0)
    write_backbone(tmp_path / "b.safetensors", Backbone(trunk, spec, Provenance(init="random")))
    out = tmp_path / "w.pth"  # beside it, or in it, its description
    assert export_backbone([str(tmp_path / "b.safetensors"), str(out), "--layout", layout]) == 0
    read = example("labelled_scans").read_trunk(out)
    assert read.input_spec == spec
    net = example("classify_slices").build_vgg16(read.width)
    net.features.load_state_dict(read.tensors)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(net.features[:-1](x), trunk(x))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        ("resnet18", "no known layout of a VGG-16"),
        ("alexnet", "is no tensor of a VGG-16"),
        ("vgg19", "is no tensor of a VGG-16"),
        ("vgg16_bn", "has batch norms"),
    ],
)
@pytest.mark.parametrize("script_name", ["classify_slices", "segment_organs"])
def test_another_networks_weights_end_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], network, reason, script_name
):
    if script_name == "segment_organs":
        pytest.importorskip("segmentation_models_pytorch", reason="it is not installed")
    with torch.device("meta"):
        state = getattr(torchvision.models, network)().state_dict()
    file, folder = tmp_path / "w.pth", str(tmp_path)
    torch.save({name: torch.zeros(()).expand(t.shape) for name, t in state.items()}, file)
    arguments = {
        "classify_slices": [str(file), "--train", folder, "--test", folder],
        "segment_organs": ["--encoder", str(file)]
        + [word for flag in ("--ct", "--labels", "--out") for word in (flag, folder)],
    }
    with pytest.raises(SystemExit) as stopped:
        example(script_name).main(arguments[script_name])
    assert stopped.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"{script_name}.py: error: {file}: ")
    assert reason in said


def test_a_table_that_names_a_slice_too_many_ends_with_one_line(tmp_path: Path, capsys):
    trunk, folder = str(tmp_path / "vgg16.safetensors"), tmp_path / "ct"
    scan = labelled(folder, [0, 99])
    scorer = str(ROOT / "ubr_pretrain/weights/scorer.safetensors")
    assert export_backbone([scorer, trunk, "--layout", "torchvision"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        example("classify_slices").main([trunk, "--train", str(folder), "--test", str(folder)])
    assert stopped.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert f"{scan}: " in said
    assert said.endswith("slices, none is number 99 from 0")


def test_a_folder_without_classes_ends_with_one_line(tmp_path: Path, capsys):
    trunk, empty = str(tmp_path / "vgg16.safetensors"), str(tmp_path)
    scorer = str(ROOT / "ubr_pretrain/weights/scorer.safetensors")
    assert export_backbone([scorer, trunk, "--layout", "torchvision"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        example("classify_slices").main([trunk, "--train", empty, "--test", empty])
    assert stopped.value.code == 2
    assert "slice_classes.csv: no such table" in capsys.readouterr().err
