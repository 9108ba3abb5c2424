"""An ONNX graph reads HU, any number of slices, and says what the checkpoint says."""

import json
import re
from pathlib import Path

import pytest
import torch

from converters import verified_export
from converters.export_backbone import main
from converters.verified_export import export_backbone
from tests.converters.checkpoints import SPEC, write_regressor
from tests.converters.test_model_card import assert_close, features_of, random_hu, run_card
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import network_input, normalise
from ubr_pretrain.regressor import read_regressor, regressor_state

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

PATHS = re.compile(rb"[\w./-]*/[\w.-]+\.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "vgg16", 0.125, batch_norm=True)


@pytest.fixture(scope="module")
def features(source: Path) -> Path:
    export_backbone(source, source.parent / "f.onnx", "onnx", weights_license="mit")
    return source.parent / "f.onnx"


@pytest.fixture(scope="module")
def scorer(source: Path) -> Path:
    export_backbone(source, source.parent / "scorer", "onnx-scorer")
    return source.parent / "scorer" / "model.onnx"


def run(file: Path, hu: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"hu": hu.numpy()})
    return torch.from_numpy(output)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (3, 3, 64, 64), (2, 3, 48, 80)])
def test_features_are_the_trunks_for_any_batch_height_and_width(source, features, shape):
    hu = random_hu(*shape)
    expected = read_regressor(source).regressor.trunk(normalise(hu, SPEC))
    found = run(features, hu)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("num", [1, 3])
def test_scores_are_the_regressors(source, scorer, num):
    hu = random_hu(num, 1, 64, 64)
    expected = read_regressor(source).regressor(network_input(hu[:, 0], SPEC))
    found = run(scorer, hu)
    assert found.shape == expected.shape == (num,)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_a_scorer_takes_slices_of_its_own_size_only(scorer):
    with pytest.raises(Exception, match="Got invalid dimensions for input: hu"):
        run(scorer, random_hu(1, 1, 80, 64))


@torch.no_grad()
def test_one_channel_of_hu_gives_the_features_of_three(source: Path, tmp_path: Path):
    export_backbone(source, tmp_path / "one.onnx", "onnx", in_channels=1)
    hu = random_hu(2, 1, 64, 96)
    trunk = read_regressor(source).regressor.trunk
    expected = trunk(normalise(hu.expand(-1, 3, -1, -1), SPEC))
    found = run(tmp_path / "one.onnx", hu)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_the_description_stands_in_the_graph_and_no_folder_of_this_machine_does(features, scorer):
    about = {entry.key: entry.value for entry in onnx.load(features).metadata_props}
    assert InputSpec.model_validate_json(about["input_spec"]) == SPEC
    assert json.loads(about["provenance"])["iterations"] == 7
    assert (about["layout"], about["license"]) == ("onnx", "mit")
    for file in (features, scorer):
        assert PATHS.findall(file.read_bytes()) == []
        onnx.checker.check_model(file, full_check=True)


def test_inputs_and_outputs_bear_the_names_of_what_they_hold(features, scorer):
    for file, out in ((features, "features"), (scorer, "scores")):
        graph = onnx.load(file).graph
        assert [value.name for value in graph.input] == ["hu"]
        assert [value.name for value in graph.output] == [out]


def test_a_trunk_alone_has_no_scores(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    export_backbone(source, tmp_path / "trunk.safetensors", "ubr")
    with pytest.raises(SystemExit):
        main(
            [str(tmp_path / "trunk.safetensors"), str(tmp_path / "s.onnx"), "--layout=onnx-scorer"]
        )
    assert "onnx-scorer needs a checkpoint of train_ubr.py" in capsys.readouterr().err
    assert not (tmp_path / "s.onnx").exists()


def test_a_graph_of_other_weights_is_never_published(
    source: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained = read_regressor(source)
    state = regressor_state(trained.regressor, trained.input_spec, trained.provenance)
    state["regressor"]["trunk.conv3_2.weight"][0] += 0.01
    write_checkpoint(source.parent / "other.safetensors", state, "ubr")

    def write_the_first(file: Path, *_args: object) -> None:
        file.write_bytes(features.read_bytes())

    monkeypatch.setattr(verified_export, "write_onnx", write_the_first)
    with pytest.raises(ValueError, match="activations differ from the checkpoint's by"):
        export_backbone(source.parent / "other.safetensors", tmp_path / "f.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_code_of_both_cards_gives_what_the_checkpoint_does(
    source: Path, features: Path, scorer: Path, monkeypatch: pytest.MonkeyPatch
):
    regressor = read_regressor(source).regressor
    names = run_card(features.with_name("f.onnx.md"), monkeypatch)
    assert_close(torch.from_numpy(names["features"]), features_of(regressor.trunk))
    names = run_card(scorer.with_name("README.md"), monkeypatch)
    assert_close(torch.from_numpy(names["scores"]), features_of(regressor, 1))
