"""With Detectron2 itself: the same detector and the same training by two engines."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lesion_det.compare_inits import OF_A_CELL
from lesion_det.compare_inits import main as compare_inits
from lesion_det.convert_detector import ComparedOn, convert_from_detectron2
from lesion_det.det_config import DetectorConfig, DetOptimiser
from lesion_det.detector import Detector, head_tensors, state_sha256
from lesion_det.detector_layouts import to_detectron2
from lesion_det.engine_parity import random_images
from lesion_det.evaluate_det import evaluate_checkpoint
from lesion_det.inference import read_detector
from lesion_det.predictions import read_predictions
from lesion_det.train_det import train
from tests.lesion_det.toy_engines import WITH_DETECTRON2
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import flags, tensors, tiny
from ubr_pretrain.checkpoint import read_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec, Window
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.trunk import Trunk

pytestmark = WITH_DETECTRON2
pytest.importorskip("detectron2.modeling", reason="Detectron2 is not installed")

from lesion_det import detector_d2  # noqa: E402

SGD = DetOptimiser(name="sgd", lr=1e-3, schedule="drops", drop_at=(0.9,), weight_decay=0)
"""AdamW would hide the scale of a gradient, and decay background's box rows in one engine only."""

BOXES = [torch.tensor([[20.0, 30.0, 60.0, 70.0]]), torch.tensor([[10.0, 12.0, 40.0, 30.0]])]
STRIDE_8_LOW_WINDOW = InputSpec(window=Window(lower_hu=-1350, upper_hu=150))


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

    def test_detections_are_in_float32_under_autocast(self, stride: int, spec: InputSpec) -> None:
        """bfloat16 has no odd number above 256: no box may be rounded to it."""
        ours = stirred(stride, spec).eval()
        theirs = detector_d2.Detectron2Detector(ours).eval()
        (image,) = random_images(1, 320)
        with torch.autocast("cpu", torch.bfloat16):
            (boxes, scores), (other_boxes, other_scores) = ours.detect(image), theirs.detect(image)
        for found in (boxes, scores, other_boxes, other_scores):
            assert found.dtype == torch.float32
        assert (boxes != boxes.bfloat16().float()).float().mean() > 0.2
        # Equal bfloat16 logits are ranked in another order; the best of all is the same.
        assert other_scores[0].item() == pytest.approx(scores[0].item(), abs=1e-2)


class TestBatches:
    def test_an_image_without_lesions_is_learned_from_by_both(self) -> None:
        ours = stirred().train()
        theirs = detector_d2.Detectron2Detector(ours).train()
        boxes = [BOXES[0], torch.zeros(0, 4)]
        losses = [d.losses(random_images(2, 96), boxes, [3, 4]) for d in (ours, theirs)]
        for name, value in losses[0].items():
            assert losses[1][name].item() == pytest.approx(value.item(), rel=1e-5), name

    @pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
    def test_every_image_has_a_seed_of_its_own(self, seeds: list[int]) -> None:
        theirs = detector_d2.Detectron2Detector(stirred()).train()
        with pytest.raises(ValueError, match="zip"):
            theirs.losses(random_images(2, 96), BOXES, seeds)


class TestState:
    def test_it_has_the_names_and_values_of_the_other_engine(self) -> None:
        ours = stirred()
        theirs = detector_d2.Detectron2Detector(ours)
        assert state_sha256(theirs.state_dict()) == state_sha256(ours.state_dict())
        assert state_sha256(head_tensors(theirs.state_dict())) == state_sha256(
            head_tensors(ours.state_dict())
        )

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
        assert train(tiny(toy, engine=engine, optimiser=SGD), root / engine).exit_code == 0
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
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6, msg=name)

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
        config = tiny(toy, engine="detectron2", optimiser=SGD, save_every=2)
        command = [sys.executable, "-W", "ignore", "-m", "lesion_det.train_det"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*command, *flags(config, tmp_path / "killed")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        last = tmp_path / "killed" / "checkpoints" / "last.safetensors"
        while not last.is_file() and process.poll() is None:
            time.sleep(0.01)
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
            folder / "model.pth",
            folder / "config.yaml",
            tmp_path / "back.safetensors",
            ComparedOn(),
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
