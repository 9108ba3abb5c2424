"""The life of a detector training: refused, interrupted, resumed, finished."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from lesion_det import prepared_images
from lesion_det.det_config import DetConfig, DetOptimiser
from lesion_det.detector import Detector
from lesion_det.inference import predict, read_detector
from lesion_det.input_cache import Entry, Writer
from lesion_det.predictions import read_predictions
from lesion_det.prepared_images import PreparedImages
from lesion_det.slices import PreparedImage
from lesion_det.splits import DATA_HASHES, read_splits
from lesion_det.train_det import main, train
from tests.command_line import refused_line
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from tests.lesion_det.toy_training import UNIT_INPUT, flags, tensors, tiny
from ubr_pretrain import late_record
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.checkpoint import file_sha256, read_checkpoint, write_checkpoint
from ubr_pretrain.config import read_config
from ubr_pretrain.journal import read_metrics
from ubr_pretrain.late_record import LateRecord
from ubr_pretrain.runtime import Ranks
from ubr_pretrain.trunk import Trunk

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 4, "val": 2, "test": 2})


@pytest.fixture(scope="module")
def out(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result = train(tiny(toy, test=(toy.coco / "test.json",)), out)
    assert (result.exit_code, result.iteration) == (0, 6)
    return out


@pytest.fixture(scope="module")
def interrupted_once(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    losses, run = Detector.losses, tmp_path_factory.mktemp("runs") / "interrupted"

    def press_ctrl_c(self: Detector, *args: Any) -> dict[str, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGINT)
        return losses(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Detector, "losses", press_ctrl_c)
        assert train(tiny(toy), run).iteration == 1
    return run


@pytest.fixture
def interrupted(interrupted_once: Path, tmp_path: Path) -> Path:
    """A copy of a run that was interrupted after one iteration."""
    return shutil.copytree(interrupted_once, tmp_path / "interrupted")


def forget(run: Path, *names: str) -> None:
    """Take hashes out of the last checkpoint of a run."""
    last = run / "checkpoints" / "last.safetensors"
    state = read_checkpoint(last, "detector")
    state["audit"] = {k: v for k, v in state["audit"].items() if k not in names}
    write_checkpoint(last, state, "detector")


class TestAFinishedRun:
    def test_it_leaves_every_file_that_the_help_names(self, out: Path) -> None:
        for name in [
            "config.yaml",
            "run.json",
            "weights.csv",
            "train.log",
            "metrics.jsonl",
            "metrics.json",
            "pictures/labels.png",
            "pictures/detections.png",
            "checkpoints/last.safetensors",
            "checkpoints/best.safetensors",
            "predictions_val.json",
            "predictions_test.json",
        ]:
            assert (out / name).stat().st_size > 0, name

    def test_N94_its_run_json_has_the_hashes_of_what_a_comparison_counts_on(
        self, out: Path
    ) -> None:
        """A training that ends writes the SHA-256 of its curve, its answers and its table of
        weights into run.json."""
        hashes = json.loads((out / "run.json").read_text("utf-8"))["files_sha256"]
        assert set(hashes) == {"metrics.jsonl", "predictions_val.json", "weights.csv"}
        assert hashes == {name: file_sha256(out / name) for name in hashes}

    def test_its_log_ends_with_the_next_command(self, out: Path, toy: ToyDeepLesion) -> None:
        last = (out / "train.log").read_text("utf-8").splitlines()[-1]
        assert last == (
            f"next: evaluate_det.py --predictions {out / 'predictions_val.json'} "
            f"--coco {toy.coco / 'val.json'} --out {out / 'evaluation'}"
        )

    def test_its_record_has_losses_and_recall(self, out: Path) -> None:
        records = read_metrics(out / "metrics.jsonl")
        training = [r for r in records if r["kind"] == "train"]
        assert [r["iteration"] for r in training] == [1, 2, 3, 4, 5, 6]
        for record in training:
            terms = [record[name] for name in ("objectness", "rpn_box", "classifier", "box")]
            assert record["loss"] == pytest.approx(sum(terms))
            assert min(terms) >= 0
        assert training[0]["lr"] == 1e-3
        assert training[5]["lr"] == 1e-3
        recalls = [r["top5_recall"] for r in records if r["kind"] == "val"]
        assert len(recalls) == 2
        metrics = json.loads((out / "metrics.json").read_text("utf-8"))
        assert metrics["top5_recall"] == recalls[-1]
        assert metrics["best_top5_recall"] == max(recalls)
        assert metrics["num_lesions"] == 2

    def test_the_checkpoint_detects_what_the_run_predicted(
        self, out: Path, toy: ToyDeepLesion
    ) -> None:
        trained = read_detector(out / "checkpoints" / "last.safetensors")
        assert trained.arm == "random"
        (truth,) = read_splits(tiny(toy)).judged
        prepared = PreparedImages(toy.images, trained.input)
        again = predict(trained.detector, truth, prepared, Ranks(0, 1, torch.device("cpu")))
        saved = read_predictions(out / "predictions_val.json")
        assert saved.ground_truth_sha256 == truth.sha256
        assert saved.num_detections > 0
        for image_id, boxes in again.boxes_xyxy.items():
            assert saved.boxes_xyxy[image_id].tolist() == boxes.tolist()

    def test_T09_it_is_not_run_again_but_for_overwrite(
        self, out: Path, toy: ToyDeepLesion, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A finished run of a detector is not begun again (code 2) but with --overwrite."""
        config = tiny(toy, test=(toy.coco / "test.json",))
        line = refused_line(main, capsys, flags(config, out))
        assert "this run has finished; use --overwrite" in line

    def test_no_path_of_this_machine_is_in_the_weights(self, out: Path) -> None:
        data = (out / "checkpoints" / "best.safetensors").read_bytes()
        assert str(out.parent).encode() not in data
        assert b"Images_png" not in data


class TestInputsOnDisk:
    def test_T13_a_training_from_a_warm_cache_is_the_same_training_and_decodes_nothing(
        self, toy: ToyDeepLesion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A detector's weights depend neither on the number of workers nor on a warm cache."""
        one, other = tmp_path / "one", tmp_path / "other"
        short = {"iterations": 3, "eval_every": 3, "scale_jitter": 0.2}
        train(tiny(toy, **short), one)
        train(tiny(toy, **short, cache=one / "inputs", workers=2), other)
        assert not (other / "inputs").exists()
        assert all(torch.equal(t, tensors(other)[k]) for k, t in tensors(one).items())
        for name in ("metrics.jsonl", "predictions_val.json"):
            assert (one / name).read_bytes() == (other / name).read_bytes(), name

        def decode(*_: object) -> None:
            raise AssertionError("decoded though it was there")

        monkeypatch.setattr(prepared_images, "prepare_image", decode)
        train(tiny(toy, **short, cache=one / "inputs"), tmp_path / "third")
        assert all(torch.equal(t, tensors(one)[k]) for k, t in tensors(tmp_path / "third").items())

    def test_T04_a_signal_while_inputs_are_decoded_ends_it_and_keeps_them(
        self, toy: ToyDeepLesion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A signal while inputs are decoded: it ends there (130), and the same command goes on."""
        append = Writer.append

        def press_ctrl_c(self: Writer, key: str, prepared: PreparedImage) -> Entry:
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)
            return append(self, key, prepared)

        monkeypatch.setattr(Writer, "append", press_ctrl_c)
        result = train(tiny(toy), tmp_path / "run")
        assert (result.exit_code, result.iteration) == (130, 0)
        assert not [*(tmp_path / "run").rglob("*.safetensors")]
        assert train(tiny(toy), tmp_path / "run").iteration == 6


class TestInterruption:
    def test_T12_a_killed_run_ends_like_an_uninterrupted_one(
        self, toy: ToyDeepLesion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A detector training that was cut off ends with the bytes of one that was not."""
        straight, killed = tmp_path / "straight", tmp_path / "killed"
        train(tiny(toy), straight)

        losses, calls = Detector.losses, 0

        def die_at_the_fifth(self: Detector, *args: Any) -> dict[str, torch.Tensor]:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise KeyboardInterrupt
            return losses(self, *args)

        monkeypatch.setattr(Detector, "losses", die_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(toy), killed)
        monkeypatch.undo()
        assert train(tiny(toy), killed, resume=True).iteration == 6
        assert tensors(straight).keys() == tensors(killed).keys()
        assert all(torch.equal(t, tensors(killed)[k]) for k, t in tensors(straight).items())
        for name in ("metrics.jsonl", "predictions_val.json", "metrics.json"):
            assert (straight / name).read_bytes() == (killed / name).read_bytes(), name

    def test_a_training_whose_numbers_come_late_is_the_same_training(
        self, toy: ToyDeepLesion, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(late_record, "LateRecord", partial(LateRecord, late=1))
        late = tmp_path / "late"
        train(tiny(toy, test=(toy.coco / "test.json",)), late)
        assert all(torch.equal(t, tensors(late)[k]) for k, t in tensors(out).items())
        for name in ("metrics.jsonl", "predictions_val.json", "metrics.json"):
            assert (late / name).read_bytes() == (out / name).read_bytes(), name
        wild = DetOptimiser(lr=1e30, schedule="drops", max_grad_norm=None)
        with pytest.raises(FloatingPointError, match=r"iteration 2: loss not finite.*images 0000"):
            train(tiny(toy, optimiser=wild, save_every=2, eval_every=100), tmp_path / "wild")
        assert not [*(tmp_path / "wild").rglob("*.safetensors")]

    def test_T04_ctrl_c_ends_it_with_a_checkpoint(
        self, toy: ToyDeepLesion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first SIGINT ends the training of a detector after its step: checkpoint, code 130."""
        losses = Detector.losses

        def press_ctrl_c(self: Detector, *args: Any) -> dict[str, torch.Tensor]:
            os.kill(os.getpid(), signal.SIGINT)
            return losses(self, *args)

        monkeypatch.setattr(Detector, "losses", press_ctrl_c)
        result = train(tiny(toy, save_every=100), tmp_path / "run")
        assert (result.exit_code, result.iteration, result.top5_recall) == (130, 1, None)
        assert len(tensors(tmp_path / "run")) == 40

    def test_data_may_move_while_it_is_interrupted_but_not_change(
        self, toy: ToyDeepLesion, interrupted: Path, tmp_path: Path
    ) -> None:
        images = shutil.copytree(toy.images, tmp_path / "slices")
        coco, changed = (shutil.copytree(toy.coco, tmp_path / name) for name in ("same", "changed"))
        with (changed / "val.json").open("a", encoding="utf-8") as file:
            file.write(" ")
        with pytest.raises(ValueError, match="val_sha256 changed since it was written"):
            train(tiny(toy, coco=changed, images=images), interrupted)
        assert read_config(interrupted / "config.yaml", DetConfig).coco == toy.coco
        assert train(tiny(toy, coco=coco, images=images), interrupted).iteration == 6
        log = (interrupted / "train.log").read_text("utf-8")
        assert f"moved: coco: {toy.coco} -> {coco}\n" in log
        assert read_config(interrupted / "config.yaml", DetConfig).coco == coco

    def test_a_checkpoint_that_does_not_know_its_data_goes_on_only_where_they_were(
        self, toy: ToyDeepLesion, interrupted: Path, tmp_path: Path
    ) -> None:
        forget(interrupted, *DATA_HASHES)
        coco = shutil.copytree(toy.coco, tmp_path / "coco")
        with (coco / "val.json").open("a", encoding="utf-8") as file:
            file.write(" ")
        with pytest.raises(ValueError, match="lacks its train_sha256, so nothing tells") as refusal:
            train(tiny(toy, coco=coco), interrupted)
        assert "\n" not in str(refusal.value)
        assert f"coco: {toy.coco} -> {coco}" in str(refusal.value)
        cache = shutil.copytree(interrupted / "inputs", tmp_path / "inputs")  # moves no data
        assert train(tiny(toy, cache=cache), interrupted).iteration == 6

    @pytest.mark.parametrize("what", ["order", "trunk", "head", "source"])
    def test_a_checkpoint_without_the_hashes_of_its_start_is_refused(
        self, toy: ToyDeepLesion, interrupted: Path, what: str
    ) -> None:
        forget(interrupted, f"{what}_sha256")
        with pytest.raises(ValueError, match=rf"last\.safetensors: lacks its {what}_sha256"):
            train(tiny(toy), interrupted)

    def test_T04_sigterm_ends_it_with_a_checkpoint(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        """SIGTERM ends the training of a detector: checkpoint, code 143, status interrupted."""
        out = tmp_path / "run"
        config = tiny(toy, iterations=100_000, eval_every=100_000, save_every=100_000)
        command = [sys.executable, "-m", "lesion_det.train_det", *flags(config, out)]
        process = subprocess.Popen(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE
        )
        deadline = time.monotonic() + 300
        try:
            while not read_metrics(out / "metrics.jsonl"):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.1)
            process.terminate()
            _, log = process.communicate(timeout=300)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 143, log
        done = read_checkpoint(out / "checkpoints" / "last.safetensors", "detector")["iteration"]
        assert done == read_metrics(out / "metrics.jsonl")[-1]["iteration"] > 0
        assert json.loads((out / "run.json").read_text("utf-8"))["status"] == "interrupted"
        assert b"the same command continues" in log


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"init": "ubr"}, "--init ubr needs --ubr CHECKPOINT"),
            ({"precision": "bf16"}, "precision bf16: needs CUDA"),
            ({"precision": "tf32"}, "precision tf32: needs CUDA"),
            ({"deterministic": False}, "deterministic false: needs CUDA"),
            ({"coco": Path("nowhere")}, "nowhere/train.json: no such file"),
            ({"images": Path("nowhere")}, "nowhere: 6 key slices are missing, first 000001_01_01"),
        ],
    )
    def test_impossible_input_is_one_line_and_no_folder(
        self,
        toy: ToyDeepLesion,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        changes: dict[str, Any],
        message: str,
    ) -> None:
        arguments = flags(tiny(toy, **changes), tmp_path / "run")
        assert message in refused_line(main, capsys, arguments)
        assert not (tmp_path / "run").exists()

    def test_T26_patients_on_both_sides_are_refused_unless_asked_for(
        self, toy: ToyDeepLesion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Patients in both sets of a detector: refused and named (code 2); --allow_leakage."""
        same = {"train": (toy.coco / "train.json",), "val": (toy.coco / "train.json",)}
        error = refused_line(main, capsys, flags(tiny(toy, **same), tmp_path / "run"))
        assert "4 patients are both trained on and evaluated on (patient 1)" in error
        splits = read_splits(tiny(toy, allow_leakage=True, **same))
        assert len(splits.learned) == splits.num_judged == 4

    def test_T10_nothing_to_resume(
        self, toy: ToyDeepLesion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--resume of a detector where no run is: refused (code 2), never begun anew."""
        arguments = [*flags(tiny(toy), tmp_path / "run"), "--resume"]
        assert "nothing to resume" in refused_line(main, capsys, arguments)

    def test_T14_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
        self,
        toy: ToyDeepLesion,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """A detector's loss that is NaN: iteration, its terms and images are named, code 1."""
        wild = DetOptimiser(lr=1e30, schedule="drops", max_grad_norm=None)
        config = tiny(toy, optimiser=wild, save_every=1, eval_every=100)
        assert main(flags(config, tmp_path / "run")) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert "iteration 2: loss not finite {'objectness': " in error
        assert "000001_01_01/010.png" in error or "images 0000" in error
        last = tmp_path / "run" / "checkpoints" / "last.safetensors"
        assert read_checkpoint(last, "detector")["iteration"] == 1


class TestComparison:
    def test_arms_of_one_seed_share_data_and_head_and_differ_in_the_trunk(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        file = tmp_path / "ubr.safetensors"
        made = Provenance(init="random", pretraining="ubr")
        write_backbone(file, Backbone(Trunk("vgg16", 0.1), UNIT_INPUT, made))
        audits = []
        for changes in ({"init": "random"}, {"init": "ubr", "ubr": file}):
            out = tmp_path / changes["init"]  # type: ignore[operator]
            train(tiny(toy, iterations=1, **changes), out)
            manifest = json.loads((out / "run.json").read_text("utf-8"))
            audits.append(manifest["audit"])
        assert audits[0]["order_sha256"] == audits[1]["order_sha256"]
        assert audits[0]["head_sha256"] == audits[1]["head_sha256"]
        assert audits[0]["trunk_sha256"] != audits[1]["trunk_sha256"]
        loaded = (tmp_path / "ubr" / "weights.csv").read_text("utf-8").count(",True\n")
        assert loaded == 26

    def test_no_name_of_a_subject_goes_on_from_the_source(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        first = Provenance(init="random", config={"anchors": ["/home/MILLER/a.csv"], "seed": 1})
        made = Provenance(
            init="random",
            pretraining="ubr",
            config={"holdout": ["MILLER_1950"], "seed": 3, "first_stage": first.model_dump()},
        )
        write_backbone(tmp_path / "ubr", Backbone(Trunk("vgg16", 0.1), UNIT_INPUT, made))
        out = tmp_path / "run"
        train(tiny(toy, iterations=1, init="ubr", ubr=tmp_path / "ubr"), out)
        assert not [file for file in out.rglob("*.*") if b"MILLER" in file.read_bytes()]
        detector = read_detector(out / "checkpoints" / "last.safetensors")
        manifest = json.loads((out / "run.json").read_text("utf-8"))
        for kept in (detector.provenance.config, manifest["provenance"]["config"]):
            assert (kept["seed"], kept["first_stage"]["config"]["seed"]) == (3, 1)

    def test_two_ranks_learn_what_one_process_learns(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        # SGD: AdamW makes a step of the rounding noise of a gradient that is zero.
        config = tiny(toy, batch=4, optimiser=DetOptimiser(lr=0.01, schedule="drops"))
        train(config, tmp_path / "one")
        ranks = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        ranks += ["--master-addr=127.0.0.1", f"--master-port={29500 + os.getpid() % 1000}"]
        command = [*ranks, "-m", "lesion_det.train_det", *flags(config, tmp_path / "two")]
        done = subprocess.run(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
        assert one.keys() == two.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=1e-4, msg=name)
        first = read_metrics(tmp_path / "one" / "metrics.jsonl")[0]["loss"]
        assert read_metrics(tmp_path / "two" / "metrics.jsonl")[0]["loss"] == pytest.approx(first)

    def test_it_learns_to_find_the_lesions_it_was_shown(
        self, toy: ToyDeepLesion, tmp_path: Path
    ) -> None:
        own = (toy.coco / "train.json",)
        config = tiny(
            toy,
            train=own,
            val=own,
            allow_leakage=True,
            flip=False,
            iterations=80,
            eval_every=80,
            optimiser=DetOptimiser(name="adamw", lr=2e-3, schedule="drops", max_grad_norm=10.0),
        )
        result = train(config, tmp_path / "run")
        assert result.top5_recall is not None
        assert result.top5_recall >= 0.75
