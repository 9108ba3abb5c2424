"""With Detectron2 itself: the same detector, the same training, and its users' own scripts."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lesion_det.batches import BatchSource
from lesion_det.compare_inits import OF_A_CELL
from lesion_det.compare_inits import main as compare_inits
from lesion_det.convert_detector import (
    compare_files,
    convert_from_detectron2,
    convert_to_detectron2,
    main,
)
from lesion_det.det_config import DetectorConfig, InputConfig
from lesion_det.detector import Detector, state_sha256
from lesion_det.detector_layouts import to_detectron2
from lesion_det.detectron2_settings import DetectorSettings
from lesion_det.engine_parity import random_images
from lesion_det.evaluate_det import evaluate_checkpoint
from lesion_det.inference import read_detector
from lesion_det.predictions import read_predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.train_det import train
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import UNIT_INPUT, flags, tensors, tiny
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec, Window
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.trunk import Trunk

pytestmark = [
    pytest.mark.detectron2,
    # Detectron2's and its friends' own modules, not ours:
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
detectron2_modeling = pytest.importorskip(
    "detectron2.modeling", reason="Detectron2 is not installed"
)

from detectron2.config import LazyCall, get_cfg, instantiate  # noqa: E402
from detectron2.data import DatasetCatalog, MetadataCatalog  # noqa: E402

from lesion_det import deeplesion_d2, detector_d2  # noqa: E402
from lesion_det.backbone_d2 import TrunkBackbone  # noqa: E402

BOXES = [torch.tensor([[20.0, 30.0, 60.0, 70.0]]), torch.tensor([[10.0, 12.0, 40.0, 30.0]])]
STRIDE_8_LOW_WINDOW = InputSpec(window=Window(lower_hu=-1350, upper_hu=150))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stirred(stride: int = 8, spec: InputSpec = IMAGENET_INPUT) -> Detector:
    """Return a detector whose heads do not all say the same, as if it had learned."""
    config = DetectorConfig(
        stride=stride, fc_dim=32, train_top_n=(1000, 200), test_top_n=(1000, 200)
    )
    torch.manual_seed(0)
    detector = Detector(Trunk("vgg16", 0.1, stride=stride), spec, config, 0)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for name, parameter in detector.named_parameters():
        if not name.startswith("trunk."):
            sd = 0.002 if "bbox_pred" in name else 0.02
            parameter.data += sd * torch.randn(parameter.shape, generator=generator)
    return detector


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("spec", [IMAGENET_INPUT, STRIDE_8_LOW_WINDOW], ids=["imagenet", "low"])
class TestOneDetectorTwoEngines:
    def test_losses_and_gradients_agree(self, stride: int, spec: InputSpec) -> None:
        """Also where the images of a batch differ in size: both pad with air."""
        ours = stirred(stride, spec).train()
        theirs = detector_d2.Detectron2Detector(ours).train()
        images = random_images(2, 96)
        losses = [d.losses(images, BOXES, [3, 4]) for d in (ours, theirs)]
        for name, value in losses[0].items():
            assert losses[1][name].item() == pytest.approx(value.item(), rel=1e-5), name
        for terms in losses:
            sum(terms.values(), torch.zeros(())).backward()
        gradients = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
        wanted = to_detectron2(gradients, len(ours.config.anchor_sizes_px))
        for name, parameter in theirs.model.named_parameters():
            assert parameter.grad is not None
            scale = float(wanted[name].abs().max())
            difference = float((parameter.grad - wanted[name]).abs().max())
            assert difference <= 2e-3 * scale, name  # float32, summed in another order

    def test_detections_agree(self, stride: int, spec: InputSpec) -> None:
        ours = stirred(stride, spec).eval()
        theirs = detector_d2.Detectron2Detector(ours).eval()
        for image in random_images(2, 100):
            (boxes, scores), (other_boxes, other_scores) = ours.detect(image), theirs.detect(image)
            assert len(boxes) > 5
            torch.testing.assert_close(other_boxes, boxes, rtol=0, atol=1e-3)
            torch.testing.assert_close(other_scores, scores, rtol=0, atol=1e-5)


class TestState:
    def test_it_has_the_names_and_values_of_the_other_engine(self) -> None:
        ours = stirred()
        theirs = detector_d2.Detectron2Detector(ours)
        assert state_sha256(theirs.state_dict()) == state_sha256(ours.state_dict())
        assert state_sha256(theirs.head_state()) == state_sha256(ours.head_state())

    def test_another_state_is_loaded_whole(self) -> None:
        ours = stirred()
        theirs = detector_d2.Detectron2Detector(ours)
        other = {name: tensor + 1 for name, tensor in ours.state_dict().items()}
        theirs.load_state_dict(other)
        assert state_sha256(theirs.state_dict()) == state_sha256(other)

    def test_diverged_weights_give_losses_that_are_not_finite(self) -> None:
        """Detectron2 raises an error that names neither iteration nor images; our loop does."""
        theirs = detector_d2.Detectron2Detector(stirred()).train()
        with torch.no_grad():
            next(theirs.parameters()).fill_(torch.nan)
        losses = theirs.losses(random_images(2, 96), BOXES, [3, 4])
        assert all(not torch.isfinite(loss) for loss in losses.values())


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 4, "val": 3, "test": 2})


@pytest.fixture(scope="module")
def runs(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the same training by both engines."""
    root = tmp_path_factory.mktemp("runs")
    for engine in ("torchvision", "detectron2"):
        assert train(tiny(toy, engine=engine), root / engine).exit_code == 0
    return {engine: root / engine for engine in ("torchvision", "detectron2")}


class TestTraining:
    def test_both_engines_learn_the_same(self, runs: dict[str, Path]) -> None:
        ours, theirs = (
            [r["loss"] for r in read_metrics(runs[e] / "metrics.jsonl") if r["kind"] == "train"]
            for e in ("torchvision", "detectron2")
        )
        assert len(ours) == 6
        np.testing.assert_allclose(theirs, ours, rtol=1e-3)
        before, after = tensors(runs["torchvision"]), tensors(runs["detectron2"])
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            if "bbox_pred" in name and name.startswith("roi_heads"):
                tensor, other = tensor[4:], after[name][4:]  # background's rows decay in one only
            else:
                other = after[name]
            torch.testing.assert_close(other, tensor, rtol=0, atol=2e-3, msg=name)

    def test_both_start_from_the_same_tensors(self, runs: dict[str, Path]) -> None:
        audits = [
            json.loads((run / "run.json").read_text("utf-8"))["audit"] for run in runs.values()
        ]
        assert audits[0] == audits[1]
        tables = [(run / "weights.csv").read_text("utf-8") for run in runs.values()]
        assert tables[0] == tables[1]

    def test_a_killed_training_continues_bit_for_bit(
        self, toy: ToyDeepLesion, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        config = tiny(toy, engine="detectron2", save_every=2)
        command = [sys.executable, "-W", "ignore", "-m", "lesion_det.train_det"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, *flags(config, tmp_path / "killed")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        last = tmp_path / "killed" / "checkpoints" / "last.safetensors"
        while not last.is_file():
            assert process.poll() is None
        process.kill()
        process.wait()
        assert train(config, tmp_path / "killed").iteration == 6
        again, wanted = tensors(tmp_path / "killed"), tensors(runs["detectron2"])
        assert all(torch.equal(again[name], tensor) for name, tensor in wanted.items())

    def test_it_ends_with_files_that_convert_back_to_its_last_checkpoint(
        self, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        folder = runs["detectron2"] / "detectron2"
        convert_from_detectron2(
            folder / "model.pth", folder / "config.yaml", tmp_path / "back.safetensors"
        )
        back = read_checkpoint(tmp_path / "back.safetensors", "detector")["detector"]
        wanted = tensors(runs["detectron2"])
        assert all(torch.equal(back[name], tensor) for name, tensor in wanted.items())
        assert not (runs["torchvision"] / "detectron2").exists()

    def test_a_checkpoint_of_one_engine_is_evaluated_by_the_other(
        self, toy: ToyDeepLesion, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint = runs["torchvision"] / "checkpoints" / "last.safetensors"
        val = toy.coco / "val.json"
        evaluate_checkpoint(checkpoint, val, toy.images, tmp_path / "tv", device="cpu")
        evaluate_checkpoint(
            checkpoint, val, toy.images, tmp_path / "d2", device="cpu", engine="detectron2"
        )
        ours, theirs = (read_predictions(tmp_path / e / "predictions.json") for e in ("tv", "d2"))
        for image_id, scores in ours.scores.items():
            np.testing.assert_allclose(theirs.scores[image_id], scores, atol=1e-5)
            np.testing.assert_allclose(
                theirs.boxes_xyxy[image_id], ours.boxes_xyxy[image_id], atol=1e-3
            )
        engine = type(read_detector(runs["detectron2"] / "checkpoints/last.safetensors").detector)
        assert engine is detector_d2.Detectron2Detector

    def test_a_comparison_by_detectron2(self, toy: ToyDeepLesion, tmp_path: Path) -> None:
        config = tiny(toy, engine="detectron2", iterations=2, eval_every=2)
        file = tmp_path / "config.yaml"
        common = config.model_dump(mode="json", exclude={*OF_A_CELL, "external"})
        file.write_text(json.dumps(common), encoding="utf-8")
        out = tmp_path / "out"
        flags_of_it = [f"--config={file}", "--inits=random", "--seeds", "0", "1", f"--out={out}"]
        assert compare_inits(flags_of_it) == 0
        page = (out / "report.html").read_text("utf-8")
        assert "<td>Detectron2</td>" in page
        assert (out / "cells" / "random-seed1" / "detectron2" / "model.pth").is_file()


class TestPlainDetectron2:
    def test_converted_files_give_the_detections_of_the_checkpoint(
        self, toy: ToyDeepLesion, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint = runs["torchvision"] / "checkpoints" / "last.safetensors"
        files = convert_to_detectron2(checkpoint, tmp_path / "d2")
        for coco, images in ((toy.coco / "val.json", toy.images), (None, None)):
            parity = compare_files(checkpoint, *files, coco, images, 3)
            assert parity is not None
            assert parity.is_equal, parity.words
            assert parity.num_matched > 20
        assert main([str(checkpoint), str(tmp_path / "again")]) == 0

    def test_a_changed_tensor_is_seen(
        self, toy: ToyDeepLesion, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint = runs["torchvision"] / "checkpoints" / "last.safetensors"
        model, config = convert_to_detectron2(checkpoint, tmp_path / "d2")
        content = torch.load(model, weights_only=True)
        content["model"]["roi_heads.box_predictor.cls_score.bias"] += torch.tensor([0.1, 0.0])
        torch.save(content, model)
        parity = compare_files(checkpoint, model, config, toy.coco / "val.json", toy.images, 3)
        assert parity is not None
        assert not parity.is_equal

    def test_its_checkpointer_would_miss_a_tensor_with_a_warning_and_we_do_not(
        self, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint = runs["torchvision"] / "checkpoints" / "last.safetensors"
        model, config = convert_to_detectron2(checkpoint, tmp_path / "d2")
        content = torch.load(model, weights_only=True)
        del content["model"]["backbone.conv1_1.weight"]
        torch.save(content, model)
        with pytest.raises(ValueError, match=r"backbone.conv1_1.weight is not loaded"):
            compare_files(checkpoint, model, config, None, None, 1)

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
        self, toy: ToyDeepLesion, runs: dict[str, Path], tmp_path: Path
    ) -> None:
        checkpoint = runs["torchvision"] / "checkpoints" / "last.safetensors"
        model, config = convert_to_detectron2(checkpoint, tmp_path / "d2")
        cfg = get_cfg()
        cfg.merge_from_file(str(config))
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", str(model)
        cfg.OUTPUT_DIR = str(tmp_path / "output")
        cfg.DATALOADER.NUM_WORKERS = 0
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 2, 2, 1e-6
        cfg.TEST.EVAL_PERIOD = 2
        Path(cfg.OUTPUT_DIR).mkdir()
        (tmp_path / "output" / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
        trainer = deeplesion_d2.LesionTrainer(cfg)
        trainer.resume_or_load(resume=False)
        trainer.train()
        metrics = json.loads((tmp_path / "output/deeplesion_val/metrics.json").read_text("utf-8"))
        recall = trainer._last_eval_results["lesion"]["top5_recall"]
        assert recall == pytest.approx(100 * metrics["top5_recall"])
        # What its trainer wrote is a detector of ours again, and finds what its evaluator saw.
        final = tmp_path / "output" / "model_final.pth"
        convert_from_detectron2(
            final, tmp_path / "output" / "config.yaml", tmp_path / "final.safetensors"
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
