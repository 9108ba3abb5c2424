"""The weights of the package: small, whole, equal to what they were made from, without a path."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ubr_pretrain.backbone import Provenance
from ubr_pretrain.calibration import read_calibration
from ubr_pretrain.checkpoint import CheckpointRefused, write_checkpoint
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.pretrained import (
    CALIBRATION,
    MAX_BYTES,
    SCORER,
    WEIGHTS_FOLDER,
    half_precision_state,
    main,
    read_pretrained,
)
from ubr_pretrain.regressor import (
    Regressor,
    TrainedRegressor,
    read_regressor,
    regressor_backbone,
    regressor_state,
)
from ubr_pretrain.scoring import read_curve, score_slices
from ubr_pretrain.trunk import Trunk

SPEC = InputSpec(size_px=64, std=(64.0, 64.0, 64.0), fov_mm=512.0)
CPU = torch.device("cpu")


def a_regressor(width: float = 0.1, *, batch_norm: bool = True) -> TrainedRegressor:
    torch.manual_seed(0)
    regressor = Regressor(Trunk(width=width, batch_norm=batch_norm), None)
    for module in regressor.modules():  # statistics as a training leaves them
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    made = Provenance(init="random", pretraining="ubr", iterations=7, num_volumes=3)
    return TrainedRegressor(regressor.eval(), SPEC, made)


def a_body(spec: InputSpec) -> tuple[np.ndarray, np.ndarray]:
    """Slices as the network reads them, and where they lie in mm."""
    rng = np.random.default_rng(3)
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="trunk", max_slices=40)
    volume = render(subject, scan, size_px=96).volume
    return resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec), volume.z_mm


def written(path: Path, trained: TrainedRegressor) -> Path:
    state = regressor_state(trained.regressor, trained.input_spec, trained.provenance)
    write_checkpoint(path, state, "ubr")
    return path


def test_half_precision_scores_as_the_checkpoint_does(tmp_path: Path) -> None:
    trained = a_regressor()
    write_checkpoint(tmp_path / SCORER, half_precision_state(trained), "ubr")
    half = read_regressor(tmp_path / SCORER)
    assert not half.regressor.trunk.batch_norm
    assert half.provenance.folded_batch_norm
    assert half.input_spec == SPEC
    slices, _ = a_body(SPEC)
    full = score_slices(trained.regressor, slices, SPEC, CPU)
    again = score_slices(half.regressor, slices, SPEC, CPU)
    np.testing.assert_allclose(again, full, rtol=0.005)  # 11 bits a weight


def test_the_package_holds_a_small_scorer_that_orders_a_body() -> None:
    assert (WEIGHTS_FOLDER / SCORER).stat().st_size <= MAX_BYTES
    pretrained = read_pretrained()
    assert len(pretrained.calibration.landmarks) >= 5
    spec = pretrained.trained.input_spec
    slices, z_mm = a_body(spec)
    curve = read_curve(score_slices(pretrained.trained.regressor, slices, spec, CPU), z_mm)
    assert curve.r is not None
    assert curve.r > 0.95


def test_S01_the_package_names_no_path() -> None:
    """The weights of the package, their card and calibration name no path."""
    made = read_pretrained().trained.provenance.model_dump(mode="json")
    card = (WEIGHTS_FOLDER / "MODEL_CARD.md").read_text()
    calibration = (WEIGHTS_FOLDER / CALIBRATION).read_text()
    assert made["pretraining"] == "ubr"
    for text in (json.dumps(made), card, calibration):
        assert not re.search(r"""(^|[\s"'(=])(/|[A-Z]:\\)\w""", text)


def test_one_command_replaces_the_scorer(tmp_path: Path, capsys) -> None:
    checkpoint = written(tmp_path / "best.safetensors", a_regressor())
    folder = tmp_path / "weights"
    argv = [str(checkpoint), "--calibration", str(WEIGHTS_FOLDER / CALIBRATION)]
    assert main([*argv, "--folder", str(folder)]) == 0
    assert "7 iterations on 3 volumes" in capsys.readouterr().out
    again = read_pretrained(folder)
    assert again.calibration == read_calibration(WEIGHTS_FOLDER / CALIBRATION)
    with (folder / CALIBRATION).open("a") as file:  # another calibration of other weights
        file.write(" ")
    with pytest.raises(ValueError, match="not the calibration that"):
        read_pretrained(folder)
    damaged = bytearray((folder / SCORER).read_bytes())
    damaged[-5] ^= 1
    (folder / SCORER).write_bytes(damaged)
    with pytest.raises(CheckpointRefused, match="E-CKPT-HASH"):
        read_pretrained(folder)


def test_weights_that_cannot_ship_are_refused_in_one_line(tmp_path: Path, capsys) -> None:
    wide = a_regressor(width=0.5, batch_norm=False)
    huge = a_regressor()
    huge.regressor.fc7.weight.data.fill_(1e6)
    for trained, word in ((wide, "use a narrower trunk"), (huge, "beyond the range of fp16")):
        checkpoint = written(tmp_path / "ubr.safetensors", trained)
        argv = [str(checkpoint), "--calibration", str(WEIGHTS_FOLDER / CALIBRATION)]
        with pytest.raises(SystemExit, match="2"):
            main([*argv, "--folder", str(tmp_path / "weights")])
        complaint = capsys.readouterr().err
        assert word in complaint
        assert complaint.count("\n") == 1
        assert not (tmp_path / "weights" / SCORER).exists()


def test_the_shipped_weights_name_no_place_and_say_that_batch_norms_are_folded() -> None:
    data = (WEIGHTS_FOLDER / SCORER).read_bytes()
    assert not re.search(rb"\.csv|\.\./|/ct/|runs/", data)
    trained = read_pretrained().trained
    assert not trained.regressor.trunk.batch_norm
    assert trained.provenance.folded_batch_norm
    assert regressor_backbone(trained).provenance.folded_batch_norm
