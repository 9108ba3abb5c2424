"""A trained detector to Detectron2's files and back; what is refused on the way."""

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lesion_det.convert_detector import (
    ComparedOn,
    convert_from_detectron2,
    convert_to_detectron2,
    main,
)
from lesion_det.det_config import DetConfig, DetOptimiser
from lesion_det.detectron2_files import read_detectron2
from lesion_det.detectron2_settings import solver_settings
from lesion_det.engine import INSTALL
from lesion_det.engine_parity import compare_answers
from lesion_det.train_det import train
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.lesion_det.toy_training import tiny
from ubr_pretrain.checkpoint import CheckpointRefused, read_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    toy = write_toy_deeplesion(root / "toy")
    train(tiny(toy, iterations=2, eval_every=2), root / "run")
    return root / "run" / "checkpoints" / "last.safetensors"


@pytest.fixture(scope="module")
def files(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("d2")
    convert_to_detectron2(trained, folder, ComparedOn())
    return folder / "model.pth", folder / "config.yaml"


def test_the_way_there_and_back_keeps_every_tensor_and_every_word(
    trained: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    convert_from_detectron2(*files, tmp_path / "back.safetensors", ComparedOn())
    before = read_checkpoint(trained, "detector")
    after = read_checkpoint(tmp_path / "back.safetensors", "detector")
    assert after["detector"].keys() == before["detector"].keys()
    for name, tensor in before["detector"].items():
        assert torch.equal(after["detector"][name], tensor), name
    for name in ("arm", "width", "input", "input_spec", "detector_config", "provenance", "config"):
        assert after[name] == before[name], name


def test_names_of_subjects_do_not_leave_with_a_checkpoint_of_before(
    trained: Path, tmp_path: Path
) -> None:
    state = read_checkpoint(trained, "detector")
    state["provenance"]["config"] = {"seed": 1, "holdout": ["MILLER_1950"]}
    write_checkpoint(tmp_path / "old.safetensors", state, "detector")
    convert_to_detectron2(tmp_path / "old.safetensors", tmp_path / "d2", ComparedOn())
    assert b"MILLER" not in (tmp_path / "d2" / "model.pth").read_bytes()
    content = torch.load(tmp_path / "d2" / "model.pth", weights_only=True)
    assert content["description"]["provenance"]["config"] == {"seed": 1}


def test_the_files_state_what_differs_from_detectron2_s_defaults(
    files: tuple[Path, Path],
) -> None:
    keys = yaml.safe_load(files[1].read_text("utf-8"))
    model = keys["MODEL"]
    assert model["ANCHOR_GENERATOR"]["NAME"] == "RoundedAnchorGenerator"
    assert model["ROI_BOX_HEAD"]["POOLER_TYPE"] == "ROIAlignV2"
    assert model["ROI_BOX_HEAD"]["POOLER_SAMPLING_RATIO"] == 2
    assert model["RPN"]["SMOOTH_L1_BETA"] == model["ROI_BOX_HEAD"]["SMOOTH_L1_BETA"] == 1 / 9
    assert model["BACKBONE"]["FREEZE_AT"] == 0
    assert model["PIXEL_MEAN"] == pytest.approx([0.4 * 255] * 3)
    assert keys["INPUT"]["FORMAT"] == "RGB"


def rewritten(files: tuple[Path, Path], folder: Path, change: Callable[[Any], None]) -> Path:
    content = torch.load(files[0], weights_only=True)
    change(content)
    torch.save(content, folder / "model.pth")
    return folder / "model.pth"


def with_key(files: tuple[Path, Path], folder: Path, path: str, value: object) -> Path:
    keys = yaml.safe_load(files[1].read_text("utf-8"))
    *above, last = path.split(".")
    inside = keys
    for name in above:
        inside = inside[name]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    return folder / "config.yaml"


class TestRefusedModels:
    RPN = "proposal_generator.rpn_head.conv.weight"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda c: c["model"].pop(TestRefusedModels.RPN), "lacks 1 of .* first proposal_gen"),
            (lambda c: c["model"].update(x=torch.ones(1)), "x is no tensor of this detector"),
            (lambda c: c["model"][TestRefusedModels.RPN].fill_(torch.nan), "not finite"),
            (
                lambda c: c["model"].update({TestRefusedModels.RPN: torch.ones(1, 2)}),
                r"conv.weight is \(1, 2\), its configuration needs",
            ),
            (lambda c: c.pop("model"), "no checkpoint of Detectron2"),
            (lambda c: c["description"].update(width=0.3), "MODEL.VGG.WIDTH is 0.1, .* needs 0.3"),
            (lambda c: c["description"].pop("arm"), "model.pth: its description: arm"),
            (lambda c: c["description"].update(arm="../../x"), "its description: arm"),
            (lambda c: c.update(description=[1]), "model.pth: its description"),
            (lambda c: c.update(background_box=3), "background_box holds no tensors by name"),
            (
                lambda c: c["model"].update({TestRefusedModels.RPN: 3}),
                "conv.weight is no dense tensor",
            ),
            (
                lambda c: c["model"].update(
                    {TestRefusedModels.RPN: c["model"][TestRefusedModels.RPN].int()}
                ),
                "conv.weight holds values that are not finite numbers",
            ),
        ],
        ids=[
            *("missing", "unknown", "nan", "shape", "no model", "another description"),
            *("no arm", "a wrong arm", "no description", "no box", "a number", "integers"),
        ],
    )
    def test_a_model_that_is_not_whole_or_not_this(
        self, files: tuple[Path, Path], tmp_path: Path, change: Callable[[Any], None], words: str
    ) -> None:
        model = rewritten(files, tmp_path, change)
        with pytest.raises(ValueError, match=words):
            convert_from_detectron2(model, files[1], tmp_path / "out.safetensors", ComparedOn())
        assert not (tmp_path / "out.safetensors").exists()

    def test_a_pickle_that_would_run_code_runs_none(
        self, files: tuple[Path, Path], tmp_path: Path
    ) -> None:
        class Touch:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "executed",)

        buffer = io.BytesIO()
        torch.save({"model": Touch()}, buffer, pickle_module=pickle)
        (tmp_path / "evil.pth").write_bytes(buffer.getvalue())
        with pytest.raises(CheckpointRefused, match=r"evil.pth: not a tensor-only torch file"):
            read_detectron2(tmp_path / "evil.pth", files[1])
        assert not (tmp_path / "executed").exists()

    def test_a_truncated_model(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        cut = tmp_path / "cut.pth"
        cut.write_bytes(files[0].read_bytes()[:-1000])
        with pytest.raises(CheckpointRefused, match=r"cut.pth: "):
            read_detectron2(cut, files[1])


class TestRefusedConfigurations:
    @pytest.mark.parametrize(
        ("path", "value", "words"),
        [
            ("MODEL.RPN.NMS_THRESH", 0.6, "MODEL.RPN.NMS_THRESH is 0.6, the detector needs 0.7"),
            ("MODEL.ROI_HEADS.NUM_CLASSES", 8, "NUM_CLASSES is 8, the detector needs 1"),
            ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign", "POOLER_TYPE is ROIAlign"),
            ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator", "needs RoundedAnchor"),
            ("INPUT.FORMAT", "BGR", "INPUT.FORMAT is BGR, the detector needs RGB"),
            ("MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "MODEL.PIXEL_MEAN is"),
            ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True, "USE_SIGMOID_CE is True, .* needs False"),
            ("MODEL.ROI_BOX_HEAD.FC_DIM", 1000, "FC_DIM is 1000, the detector needs 32"),
            (
                "MODEL.ROI_BOX_HEAD.FC_DIM",
                10**12,
                "fc_dim: Input should be less than or equal to 262144",
            ),
            ("MODEL.VGG.WIDTH", "wide", "config.yaml: no configuration of this detector"),
            ("MODEL.VGG.STRIDE", 4, "config.yaml: stride"),
            ("INPUT.CT.WINDOW_HU", [5.0, 1.0], "config.yaml: "),
            ("_BASE_", "http://elsewhere/base.yaml", "builds on http://elsewhere/base.yaml"),
            ("MODEL.RPN", None, "lacks RPN"),
            ("MODEL.RPN.CONV_DIMS", None, "lacks MODEL.RPN.CONV_DIMS"),
        ],
    )
    def test_a_key_that_the_detector_cannot_follow(
        self, files: tuple[Path, Path], tmp_path: Path, path: str, value: object, words: str
    ) -> None:
        config = with_key(files, tmp_path, path, value)
        with pytest.raises(ValueError, match=words):
            read_detectron2(files[0], config)

    def test_what_trains_but_computes_nothing_is_free(
        self, files: tuple[Path, Path], tmp_path: Path
    ) -> None:
        config = with_key(files, tmp_path, "DATASETS.TRAIN", ["mine"])
        assert read_detectron2(files[0], config)["width"] == 0.1

    def test_no_file_and_no_yaml(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no such file; name the configuration with --config"):
            read_detectron2(files[0], tmp_path / "absent.yaml")
        (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
        with pytest.raises(ValueError, match=r"bad.yaml: not YAML"):
            read_detectron2(files[0], tmp_path / "bad.yaml")


def test_a_detector_that_others_trained_is_described_by_its_configuration(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    model = rewritten(files, tmp_path, lambda c: [c.pop("description"), c.pop("background_box")])
    state = read_detectron2(model, files[1])
    assert state["arm"] == state["provenance"]["init"] == "external"
    assert state["detector_config"]["anchor_sizes_px"] == [8, 12, 16]
    spec = state["input_spec"]
    assert spec["mean"][0] / spec["scale"] == pytest.approx(0.4)
    assert spec["std"][0] / spec["scale"] == pytest.approx(0.3)


class TestCommand:
    def test_both_directions(
        self,
        trained: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(sys.modules, "detectron2", None)
        assert main([str(trained), str(tmp_path / "d2")]) == 0
        assert INSTALL in capsys.readouterr().out
        assert main([str(tmp_path / "d2" / "model.pth"), str(tmp_path / "b.safetensors")]) == 0
        assert "next: evaluate_det.py --checkpoint" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            main([str(trained), str(tmp_path / "d2")])
        assert "exists; use --overwrite" in capsys.readouterr().err
        assert main([str(trained), str(tmp_path / "d2"), "--overwrite"]) == 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["a.safetensors", "b.bin"], "b.bin: what becomes of a.safetensors is a folder"),
            (["a.pth", "folder"], "folder: what becomes of a.pth is a .safetensors file"),
            (["a.safetensors", "d", "--coco=c"], "--coco and --images go together"),
            (["a.safetensors", "d", "--config=c"], "--config goes with a .pth"),
            (["a.safetensors", "d", "--max_images=0"], "--max_images 0: expected 1 or more"),
            (["absent.safetensors", "d"], "absent.safetensors: no such file"),
        ],
    )
    def test_refusals_are_one_line(
        self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line


class TestComparison:
    def answers(self, *rows: tuple[float, ...]) -> Any:
        table = torch.tensor(rows, dtype=torch.float64).numpy().reshape(-1, 5)
        return [(table[:, :4], table[:, 4])]

    def test_order_does_not_matter_but_every_detection_counts(self) -> None:
        one, other = (0.0, 0.0, 10.0, 10.0, 0.9), (20.0, 0.0, 30.0, 10.0, 0.8)
        assert compare_answers(self.answers(one, other), self.answers(other, one)).is_equal
        found = compare_answers(self.answers(one, other), self.answers(one))
        assert (found.num_detections, found.num_matched) == ((2, 1), 1)
        assert not found.is_equal

    def test_a_detection_is_matched_once(self) -> None:
        one = (0.0, 0.0, 10.0, 10.0, 0.9)
        assert not compare_answers(self.answers(one, one), self.answers(one)).is_equal

    @pytest.mark.parametrize(
        ("other", "equal"),
        [
            ((0.0, 0.0, 10.0, 10.0, 0.90005), True),
            ((0.0, 0.0, 10.0, 10.0, 0.9002), False),
            ((0.05, 0.0, 10.0, 10.0, 0.9), True),  # IoU 0.995
            ((0.2, 0.0, 10.0, 10.0, 0.9), False),  # IoU 0.98
        ],
    )
    def test_thresholds(self, other: tuple[float, ...], equal: bool) -> None:
        one = (0.0, 0.0, 10.0, 10.0, 0.9)
        assert compare_answers(self.answers(one), self.answers(other)).is_equal is equal

    def test_nothing_found_proves_nothing(self) -> None:
        assert not compare_answers(self.answers(), self.answers()).is_equal
        assert not compare_answers([], []).is_equal


def test_a_checkpoint_that_is_not_its_description_is_refused(trained: Path, tmp_path: Path) -> None:
    state = read_checkpoint(trained, "detector")
    state["detector"]["rpn.head.cls_logits.weight"] = torch.ones(3, 2, 1, 1)
    write_checkpoint(tmp_path / "odd.safetensors", state, "detector")
    with pytest.raises(CheckpointRefused, match=r"cls_logits.weight is \(3, 2, 1, 1\), its conf"):
        convert_to_detectron2(tmp_path / "odd.safetensors", tmp_path / "out", ComparedOn())
    assert not (tmp_path / "out").exists()


class TestSchedule:
    def test_detectron2_s_steps_are_where_our_rate_falls(self) -> None:
        config = DetConfig(coco=Path(), init="ubr", iterations=50_000)
        solver = solver_settings(config)["SOLVER"]
        assert solver["STEPS"] == [20_000, 40_000]
        for step in solver["STEPS"]:
            before = config.optimiser.lr_at(step, config.iterations, "ubr")
            after = config.optimiser.lr_at(step + 1, config.iterations, "ubr")
            assert after == pytest.approx(before * solver["GAMMA"])

    def test_an_optimiser_that_it_does_not_know_is_not_stated(self) -> None:
        config = DetConfig(coco=Path(), optimiser=DetOptimiser(name="adamw"))
        assert solver_settings(config) == {}
