"""Which library computes the detector, and what is said where it is not there."""

import sys
from pathlib import Path

import pytest
import torch

from lesion_det.det_config import DetectorConfig
from lesion_det.detector import Detector
from lesion_det.engine import build_detector, has_detectron2
from lesion_det.evaluate_det import main as evaluate_det
from lesion_det.train_det import main as train_det
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_training import flags, tiny
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk


@pytest.fixture
def without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "lesion_det.detector_d2", raising=False)


def test_torchvision_needs_nothing_else() -> None:
    config = DetectorConfig(stride=8, fc_dim=16)
    trunk = Trunk("vgg16", 0.1, stride=8)
    built = build_detector("torchvision", trunk, InputSpec(), config, 0)
    assert isinstance(built, Detector)
    assert built.trunk is trunk
    assert all(torch.isfinite(tensor).all() for tensor in built.state_dict().values())


@pytest.mark.usefixtures("without_detectron2")
class TestWithoutDetectron2:
    def test_it_is_known_to_be_absent(self) -> None:
        assert not has_detectron2()

    def test_training_says_in_one_line_what_to_install(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        toy = write_toy_deeplesion(tmp_path / "toy")
        config = tiny(toy, engine="detectron2")
        with pytest.raises(SystemExit) as ended:
            train_det(flags(config, tmp_path / "run"))
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("train_det.py: ")
        assert "--engine detectron2: Detectron2 cannot be imported" in line
        assert "https://detectron2.readthedocs.io/tutorials/install.html" in line
        assert not (tmp_path / "run" / "checkpoints").exists()

    def test_the_engine_of_predictions_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--predictions=p.json", "--engine=detectron2", "--coco=c.json"]
        with pytest.raises(SystemExit) as ended:
            evaluate_det([*arguments, f"--out={tmp_path}"])
        assert ended.value.code == 2
        assert "--engine goes with --checkpoint" in capsys.readouterr().err
