"""With Detectron2 itself: what a plain script of its users gets of a converted detector."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from lesion_det.batches import BatchSource
from lesion_det.convert_detector import (
    ComparedOn,
    compare_files,
    convert_from_detectron2,
    convert_to_detectron2,
    main,
)
from lesion_det.det_config import DetectorConfig, InputConfig
from lesion_det.detectron2_settings import DetectorSettings
from lesion_det.engine_parity import plain_detectron2
from lesion_det.evaluate_det import evaluate_checkpoint
from lesion_det.predictions import read_predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.train_det import train
from tests.lesion_det.toy_engines import WITH_DETECTRON2
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import UNIT_INPUT, tiny

pytestmark = WITH_DETECTRON2
detectron2_modeling = pytest.importorskip(
    "detectron2.modeling", reason="Detectron2 is not installed"
)

from detectron2.config import LazyCall, get_cfg, instantiate  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402

from lesion_det import deeplesion_d2, detector_d2  # noqa: E402
from lesion_det.backbone_d2 import TrunkBackbone  # noqa: E402


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 4, "val": 3, "test": 2})


@pytest.fixture(scope="module")
def checkpoint(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert train(tiny(toy), out).exit_code == 0
    return out / "checkpoints" / "last.safetensors"


def on_val(toy: ToyDeepLesion) -> ComparedOn:
    return ComparedOn(toy.coco / "val.json", toy.images, 3)


def converted(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    assert convert_to_detectron2(checkpoint, folder, ComparedOn()) is not None
    return folder / "model.pth", folder / "config.yaml"


class TestPlainDetectron2:
    def test_converted_files_give_the_detections_of_the_checkpoint(
        self, toy: ToyDeepLesion, checkpoint: Path, tmp_path: Path
    ) -> None:
        files = converted(checkpoint, tmp_path / "d2")
        for coco, images in ((toy.coco / "val.json", toy.images), (None, None)):
            parity = compare_files(checkpoint, *files, ComparedOn(coco, images, 3))
            assert parity is not None
            assert parity.is_equal, parity.words
            assert parity.num_matched > 20
        assert main([str(checkpoint), str(tmp_path / "again")]) == 0

    def test_a_changed_tensor_is_seen(
        self, toy: ToyDeepLesion, checkpoint: Path, tmp_path: Path
    ) -> None:
        model, config = converted(checkpoint, tmp_path / "d2")
        content = torch.load(model, weights_only=True)
        content["model"]["roi_heads.box_predictor.cls_score.bias"] += torch.tensor([0.1, 0.0])
        torch.save(content, model)
        with pytest.raises(ValueError, match="the two engines do not find the same: 3 images"):
            compare_files(checkpoint, model, config, on_val(toy))

    def test_its_checkpointer_would_miss_a_tensor_with_a_warning_and_we_do_not(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        model, config = converted(checkpoint, tmp_path / "d2")
        content = torch.load(model, weights_only=True)
        del content["model"]["backbone.conv1_1.weight"]
        torch.save(content, model)
        with pytest.raises(ValueError, match=r"backbone.conv1_1.weight is not loaded"):
            compare_files(checkpoint, model, config, ComparedOn())

    def test_what_differs_does_not_appear(self, checkpoint: Path, tmp_path: Path) -> None:
        model, config = converted(checkpoint, tmp_path / "d2")
        text = config.read_text("utf-8").replace("PRE_NMS_TOPK_TEST: 200", "PRE_NMS_TOPK_TEST: 9")
        config.write_text(text, encoding="utf-8")
        content = torch.load(model, weights_only=True)
        content["description"]["detector_config"]["test_top_n"] = [9, 50]
        torch.save(content, model)
        assert main([str(model), str(tmp_path / "fewer.safetensors")]) == 0
        content["model"]["backbone.conv1_1.weight"] *= float("1e30")
        torch.save(content, model)
        with pytest.raises(SystemExit):
            main([str(model), str(tmp_path / "odd.safetensors")])
        assert not (tmp_path / "odd.safetensors").exists()

    def test_a_configuration_that_runs_code_runs_none(
        self, checkpoint: Path, tmp_path: Path
    ) -> None:
        """Detectron2 loads YAML unsafely unless told otherwise."""
        model, config = converted(checkpoint, tmp_path / "d2")
        evil = f"!!python/object/apply:os.system ['touch {tmp_path / 'executed'}']"
        config.write_text(config.read_text("utf-8") + f"OUTPUT_DIR: {evil}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=r"config.yaml: not YAML"):
            convert_from_detectron2(model, config, tmp_path / "out.safetensors", ComparedOn())
        with pytest.raises(yaml.YAMLError):
            plain_detectron2(model, config)
        assert not (tmp_path / "executed").exists()

    def test_a_plain_configuration_uses_the_backbone(self) -> None:
        cfg = get_cfg()
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.BACKBONE.NAME = "build_vgg16_backbone"
        cfg.MODEL.BACKBONE.FREEZE_AT = 2
        cfg.MODEL.VGG.WIDTH = 0.25
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["conv5"]
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
        cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
        model = detectron2_modeling.build_model(cfg).eval()
        assert model.backbone.output_shape()["conv5"].stride == 16
        assert model.backbone.output_shape()["conv5"].channels == 128
        frozen = {
            n.partition("_")[0] for n, p in model.backbone.named_parameters() if not p.requires_grad
        }
        assert frozen == {"conv1", "conv2"}
        (found,) = model([{"image": torch.zeros(3, 70, 90)}])
        assert found["instances"].image_size == (70, 90)

    @pytest.mark.parametrize(
        ("arch", "stride", "strides"),
        [
            ("vgg16", 16, [1, 2, 4, 8, 16]),
            ("vgg16", 8, [1, 2, 4, 8, 8]),
            ("alexnet", 16, [4, 8, 16, 16, 16]),
        ],
    )
    def test_every_block_is_an_output_at_its_stated_stride(
        self, arch: str, stride: int, strides: list[int]
    ) -> None:
        names = [f"conv{i}" for i in range(1, 6)]
        backbone = TrunkBackbone(arch, 0.1, stride, names).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            outputs = backbone(torch.rand(1, 3, 192, 256))
        for name, step in zip(names, strides, strict=True):
            shape = backbone.output_shape()[name]
            assert shape.stride == step
            assert outputs[name].shape[1] == shape.channels
            if arch == "vgg16":
                assert outputs[name].shape[2:] == (192 // step, 256 // step)

    def test_a_block_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="out_features conv6: expected some of conv1"):
            TrunkBackbone(out_features=["conv6"], width=0.1)

    def test_a_lazy_configuration_builds_it(self) -> None:
        lazy = LazyCall(TrunkBackbone)(arch="vgg16", width=0.1, stride=8, out_features=["conv4"])
        built = instantiate(lazy)
        assert isinstance(built, detectron2_modeling.Backbone)
        assert isinstance(built, nn.Module)
        assert list(built.output_shape()) == ["conv4"]


class TestDatasets:
    @pytest.fixture(autouse=True)
    def registered(self, toy: ToyDeepLesion) -> Iterator[None]:
        deeplesion_d2.register_deeplesion(toy.coco, toy.images)
        yield
        deeplesion_d2.register_deeplesion(Path("datasets"), Path("datasets"))

    def test_their_names_are_there_before_any_file_is(self) -> None:
        code = (
            "import lesion_det.detector_d2\n"
            "from detectron2.data import DatasetCatalog as c, MetadataCatalog as m\n"
            "print([n for n in c.list() if n.startswith('deeplesion')])\n"
            "print(m.get('deeplesion_val').json_file)\n"
        )
        environment = os.environ | {"DETECTRON2_DATASETS": "/data"}
        answer = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        assert answer[-2] == "['deeplesion_train', 'deeplesion_val', 'deeplesion_test']"
        assert Path(answer[-1]) == Path("/data/deeplesion/val.json")

    def test_entries_have_detectron2_s_own_form(self, toy: ToyDeepLesion) -> None:
        entries = DatasetCatalog.get("deeplesion_train")
        assert len(entries) == 4
        record = toy.records("train")[0]
        assert entries[0]["file_name"] == str(toy.images / record.file_name)
        assert entries[0]["annotations"][0]["bbox"] == record.boxes_xyxy[0].tolist()
        assert entries[0]["annotations"][0]["category_id"] == 0
        assert MetadataCatalog.get("deeplesion_train").thing_classes == ["lesion"]

    def test_the_mapper_gives_what_our_loop_learns_from(self, toy: ToyDeepLesion) -> None:
        mapper = deeplesion_d2.LesionMapper(
            input_config=InputConfig(max_px=64), window=UNIT_INPUT.window
        )
        prepared = PreparedImages(toy.images, InputConfig(max_px=64))
        source = BatchSource(toy.records("train"), prepared, tiny(toy, flip=False))
        examples = {e.name: e for i in (1, 2) for p in (0, 1) for e in [source.example(i, p)]}
        assert len(examples) == 4
        lower, upper = UNIT_INPUT.window.lower_hu, UNIT_INPUT.window.upper_hu
        for entry in DatasetCatalog.get("deeplesion_train"):
            mapped, example = mapper(entry), examples[entry["record"].file_name]
            grey = ((example.hu.double() - lower) / (upper - lower)).clip(0, 1) * 255
            torch.testing.assert_close(mapped["image"].double(), grey, rtol=0, atol=1e-4)
            assert torch.equal(mapped["instances"].gt_boxes.tensor, example.boxes_xyxy)
            assert (mapped["instances"].gt_classes == 0).all()

    def test_a_mirrored_image_has_mirrored_boxes(self, toy: ToyDeepLesion) -> None:
        from detectron2.data import transforms as T

        plain, mirrored = (
            deeplesion_d2.LesionMapper(
                input_config=InputConfig(max_px=64), window=UNIT_INPUT.window, augmentations=views
            )(DatasetCatalog.get("deeplesion_train")[0])
            for views in ([], [T.RandomFlip(1.0)])
        )
        assert torch.equal(mirrored["image"], plain["image"].flip(2))
        width = plain["width"]
        x1, y1, x2, y2 = plain["instances"].gt_boxes.tensor[0].tolist()
        assert mirrored["instances"].gt_boxes.tensor[0].tolist() == pytest.approx(
            [width - x2, y1, width - x1, y2]
        )

    def test_detectron2_s_trainer_trains_evaluates_and_converts(
        self, toy: ToyDeepLesion, checkpoint: Path, tmp_path: Path
    ) -> None:
        model, config = converted(checkpoint, tmp_path / "d2")
        cfg = get_cfg()
        cfg.merge_from_file(str(config))
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(model)
        cfg.OUTPUT_DIR = str(tmp_path / "output")
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 2, 2, 1e-6
        cfg.TEST.EVAL_PERIOD = 2
        trainer = deeplesion_d2.LesionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        metrics = json.loads((tmp_path / "output/deeplesion_val/metrics.json").read_text("utf-8"))
        recall = trainer._last_eval_results["lesion"]["top5_recall"]
        assert recall == pytest.approx(100 * metrics["top5_recall"])
        # What its trainer wrote is a detector of ours again, and finds what its evaluator saw.
        final = tmp_path / "output" / "model_final.pth"
        convert_from_detectron2(
            final, tmp_path / "output" / "config.yaml", tmp_path / "final.safetensors", on_val(toy)
        )
        val = toy.coco / "val.json"
        evaluate_checkpoint(
            tmp_path / "final.safetensors", val, toy.images, tmp_path / "eval", device="cpu"
        )
        theirs = read_predictions(tmp_path / "output" / "deeplesion_val" / "predictions.json")
        ours = read_predictions(tmp_path / "eval" / "predictions.json")
        for image_id, scores in ours.scores.items():
            np.testing.assert_allclose(theirs.scores[image_id], scores, atol=1e-5)
            np.testing.assert_allclose(
                theirs.boxes_xyxy[image_id], ours.boxes_xyxy[image_id], atol=1e-2
            )


def test_our_keys_survive_a_yaml_file_and_detectron2_s_own_dump(tmp_path: Path) -> None:
    settings = DetectorSettings(
        0.5, DetectorConfig(stride=8, max_detections=7), InputConfig(pixel_mm=None), UNIT_INPUT
    )
    cfg = detector_d2.build_cfg(settings)
    (tmp_path / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    again = get_cfg()
    again.merge_from_file(str(tmp_path / "config.yaml"))
    assert again.MODEL.VGG.WIDTH == 0.5
    assert again.INPUT.CT.PIXEL_MM == 0
    assert again.dump() == cfg.dump()
