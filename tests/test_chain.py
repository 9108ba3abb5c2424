"""The whole chain at the smallest size: every command, each on what the one before it wrote."""

import json

import pytest

from converters.deeplesion_to_coco import main as deeplesion_to_coco
from converters.export_backbone import main as export_backbone
from lesion_det.compare_inits import main as compare_inits
from lesion_det.evaluate_det import main as evaluate_det
from lesion_det.train_det import main as train_det
from ubr_pretrain.backbone import read_backbone
from ubr_pretrain.evaluate_scores import main as evaluate_scores
from ubr_pretrain.phantom_cohort import main as make_phantoms
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.train_ubr import main as train_ubr


def run(main, *argv):
    assert main([str(a) for a in argv]) == 0, argv


@pytest.fixture(scope="module")
def chain(tmp_path_factory, one_thread):
    """Phantoms, a regressor, its scores, COCO files, an exported trunk."""
    top = tmp_path_factory.mktemp("chain")
    run(
        make_phantoms, top / "phantoms", "--subjects", 4, "--matrix", 64, "--max-slices", 40,
        "--region", "trunk", "--deeplesion", "--lesion-patients", 12, "--pictures", 2,
    )  # fmt: skip
    ct, lesions = top / "phantoms/ct", top / "phantoms/deeplesion"
    run(
        train_ubr, "--preset", "demo", "--data", ct, "--out", top / "ubr", "--iterations", 4,
        "--width", 0.125, "--input.size_px", 32, "--g", 2, "--holdout", "phantom_0_0001",
        "--holdout_fraction", 0,
    )  # fmt: skip
    best = top / "ubr/checkpoints/best.safetensors"
    run(score_volumes, ct, "--checkpoint", best, "--out", top / "scores")
    labels = ct / "slice_classes.csv"
    run(evaluate_scores, top / "scores", "--labels", labels, "--out", top / "evaluation")
    images = lesions / "Images_png"
    run(deeplesion_to_coco, lesions / "DL_info.csv", "--images", images, "--out", top / "coco")
    run(export_backbone, best, top / "ubr.safetensors", "--layout", "ubr")
    return top


SMALL = (
    "--preset", "demo", "--iterations", 2, "--eval_every", 2, "--save_every", 2,
    "--input.max_px", 96, "--width", 0.125, "--detector.fc_dim", 32,
)  # fmt: skip


def test_the_exported_trunk_is_the_regressors(chain):
    backbone = read_backbone(chain / "ubr.safetensors")
    assert backbone.provenance.pretraining == "ubr"
    assert backbone.provenance.folded_batch_norm
    assert backbone.provenance.num_volumes == 3
    assert backbone.input_spec.size_px == 32


def test_scores_and_their_evaluation_are_complete(chain):
    volumes = json.loads((chain / "scores/scores.json").read_text())["volumes"]
    assert len(volumes) == 4
    assert not any("code" in volume for volume in volumes)
    result = json.loads((chain / "evaluation/evaluation.json").read_text())
    assert result["num_volumes"] == 4
    assert 0 <= result["accuracy_mean"] <= 1


def test_two_arms_are_trained_compared_and_reported(chain):
    argv = [
        *SMALL, "--coco", chain / "coco", "--images", chain / "phantoms/deeplesion/Images_png",
        "--ubr", chain / "ubr.safetensors", "--inits", "random", "ubr", "--seeds", 0,
        "--ubr-run", chain / "ubr", "--scores", chain / "scores", "--out", chain / "compare",
    ]  # fmt: skip
    run(compare_inits, *argv)
    report = (chain / "compare/report.html").read_text()
    assert "<html" in report
    assert 'src="http' not in report
    record = json.loads((chain / "compare/comparison.json").read_text())
    assert "random" in json.dumps(record)
    before = (chain / "compare/cells/ubr-seed0/checkpoints/last.safetensors").stat().st_mtime_ns
    assert compare_inits([str(a) for a in argv]) == 0  # nothing is trained again
    after = (chain / "compare/cells/ubr-seed0/checkpoints/last.safetensors").stat().st_mtime_ns
    assert before == after


def test_an_arm_started_from_the_wrong_weights_is_refused(chain, capsys):
    argv = [
        *SMALL, "--coco", chain / "coco", "--images", chain / "phantoms/deeplesion/Images_png",
        "--ubr", chain / "ubr.safetensors", "--init", "ubr+imagenet", "--out", chain / "wrong",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        train_det([str(a) for a in argv])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "ubr+imagenet" in error
    assert "random" in error


def test_a_trained_detector_is_evaluated_from_its_checkpoint(chain):
    argv = [
        *SMALL, "--coco", chain / "coco", "--images", chain / "phantoms/deeplesion/Images_png",
        "--ubr", chain / "ubr.safetensors", "--init", "ubr", "--out", chain / "det",
    ]  # fmt: skip
    run(train_det, *argv)
    run(
        evaluate_det, "--checkpoint", chain / "det/checkpoints/last.safetensors",
        "--coco", chain / "coco/val.json", "--images", chain / "phantoms/deeplesion/Images_png",
        "--out", chain / "val",
    )  # fmt: skip
    assert json.loads((chain / "val/metrics.json").read_text())
