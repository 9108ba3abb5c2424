"""A regressor that starts from a trunk of others: fed what that was trained on, and remembered."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ubr_pretrain.tiny_cohort import tiny_config, write_tiny_cohort
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import read_config
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec, Window
from ubr_pretrain.layouts import tensor_names
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.starting_trunk import start_trunk, with_input_of_start
from ubr_pretrain.train_ubr import main, train
from ubr_pretrain.transferred_blocks import is_transferred
from ubr_pretrain.trunk import Architecture, Trunk
from ubr_pretrain.ubr_config import Optimiser, UbrConfig

WIDTH = 0.1
CT_INPUT = InputSpec(window=Window(lower_hu=-1000, upper_hu=400), scale=1.0, mean=(0.4,) * 3)
STANDSTILL = Optimiser(name="sgd", lr=1e-300, weight_decay=0.0)
PLAIN = InputSpec(size_px=32, fov_mm=512.0)
"""Window and grey values left at their defaults."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cohort(tmp_path_factory.mktemp("cohort"), count=2)


def foreign_file(folder: Path, arch: Architecture = "vgg16") -> tuple[Path, Trunk]:
    with torch.random.fork_rng():
        torch.manual_seed(11)
        trunk = Trunk(arch, WIDTH)
    names = tensor_names(arch, "torchvision")
    torch.save({names[k]: t for k, t in trunk.state_dict().items()}, folder / "theirs.pth")
    return folder / "theirs.pth", trunk


def own_file(folder: Path) -> Path:
    path = folder / "ours.safetensors"
    made = Provenance(init="random", pretraining="ubr")
    write_backbone(path, Backbone(Trunk("vgg16", WIDTH), CT_INPUT, made))
    return path


def config(**changes: Any) -> UbrConfig:
    settings = {"input": PLAIN, "init": "external", "holdout": (), "iterations": 1, "g": 2}
    return tiny_config(Path("ct"), **{"optimiser": STANDSTILL, **settings, **changes})


class TestInput:
    def test_an_input_at_its_default_gives_way_to_the_trunks(self, tmp_path: Path) -> None:
        file, _ = foreign_file(tmp_path)
        found = with_input_of_start(config(external=file, external_input="imagenet")).input
        assert (found.scale, found.mean, found.std) == (
            IMAGENET_INPUT.scale,
            IMAGENET_INPUT.mean,
            IMAGENET_INPUT.std,
        )
        assert (found.size_px, found.fov_mm) == (32, 512.0)
        own = with_input_of_start(config(external=own_file(tmp_path))).input
        assert own == CT_INPUT.model_copy(update={"size_px": 32, "fov_mm": 512.0})

    @pytest.mark.parametrize("init", ["imagenet", "external"])
    @pytest.mark.parametrize("field", ["scale", "mean", "std"])
    def test_another_input_is_refused(self, tmp_path: Path, init: str, field: str) -> None:
        file, _ = foreign_file(tmp_path)
        start: dict[str, Any] = (
            {"init": init, "imagenet_weights": file}
            if init == "imagenet"
            else {"external": file, "external_input": "imagenet"}
        )
        value = 2.0 if field == "scale" else (2.0, 2.0, 2.0)
        asked = config(**start, input=PLAIN.model_copy(update={field: value}))
        with pytest.raises(ValueError, match=rf"input\.{field} .*theirs\.pth.* leave --input"):
            with_input_of_start(asked)

    def test_pictures_leave_the_window_open_and_ct_does_not(self, tmp_path: Path) -> None:
        lung = PLAIN.model_copy(update={"window": Window(lower_hu=-1350, upper_hu=150)})
        file, _ = foreign_file(tmp_path)
        kept = with_input_of_start(config(external=file, external_input="imagenet", input=lung))
        assert kept.input.window == lung.window
        with pytest.raises(ValueError, match=r"input\.window .*ours\.safetensors"):
            with_input_of_start(config(external=own_file(tmp_path), input=lung))

    def test_what_was_adopted_is_what_is_asked_for_next_time(self, tmp_path: Path) -> None:
        once = with_input_of_start(config(external=own_file(tmp_path)))
        assert with_input_of_start(once) == once

    def test_a_trunk_is_never_started_on_another_input(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"not what the trunk of ours\.safetensors"):
            start_trunk(config(external=own_file(tmp_path)))

    def test_a_random_start_keeps_any_input(self) -> None:
        asked = config(init="random", input=CT_INPUT)
        assert with_input_of_start(asked) == asked


class TestTransfer:
    @pytest.mark.parametrize("arch", ["vgg16", "alexnet"])
    @pytest.mark.parametrize("through", ["conv1", "conv3", "conv5"])
    def test_blocks_behind_are_the_random_starts_and_so_is_what_is_drawn_next(
        self, tmp_path: Path, arch: Architecture, through: str
    ) -> None:
        file, theirs = foreign_file(tmp_path, arch)
        asked = config(
            external=file, external_input="imagenet", arch=arch, transfer_through=through
        )
        torch.manual_seed(4)
        begun, next_drawn = start_trunk(with_input_of_start(asked)), torch.rand(3)
        torch.manual_seed(4)
        drawn = start_trunk(config(init="random", arch=arch))
        assert torch.equal(torch.rand(3), next_drawn)
        for name, tensor in begun.state_dict().items():
            source = theirs if name.split(".")[0].split("_")[0] <= through else drawn
            assert torch.equal(tensor, source.state_dict()[name]), name

    def test_blocks_are_told_by_the_first_part_of_a_name(self) -> None:
        assert is_transferred("conv3_2.weight", "conv3")
        assert is_transferred("conv3.bias", "conv3")
        assert not is_transferred("conv4_1.weight", "conv3")


class TestFlags:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"external": None}, "--init external needs --external FILE"),
            ({"external": Path("w"), "init": "random"}, "random does not use --external FILE"),
            ({"external_input": "imagenet", "init": "imagenet"}, "not use --external_input"),
            ({"transfer_through": "conv2", "init": "random"}, "not use --transfer_through"),
            ({"imagenet_weights": Path("w"), "init": "random"}, "not use --imagenet-weights"),
            ({"external": Path("w"), "batch_norm": True}, "has no batch norm"),
            ({"external": Path("w"), "start": Path("s")}, "--external FILE: not used with --start"),
        ],
    )
    def test_a_flag_that_a_start_lacks_or_would_ignore(
        self, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            config(**changes)


def test_a_training_remembers_the_file_and_its_second_stage_too(
    cohort: Path, tmp_path: Path
) -> None:
    file, theirs = foreign_file(tmp_path)
    asked = config(data=(cohort,), external=file, external_input="imagenet")
    assert train(asked, tmp_path / "run") == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "last.safetensors"
    found = read_regressor(checkpoint)
    made = found.provenance
    assert (made.init, made.pretraining) == ("external", "ubr")
    assert made.source == "theirs.pth (torchvision layout)"
    assert made.source_sha256 == file_sha256(file)
    assert str(tmp_path) not in made.model_dump_json()
    assert found.input_spec.std == IMAGENET_INPUT.std
    assert read_config(tmp_path / "run" / "config.yaml", UbrConfig).input == found.input_spec
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["init"], run["source"], run["source_sha256"]) == (
        made.init,
        made.source,
        made.source_sha256,
    )
    state = found.regressor.trunk.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())

    again = config(data=(cohort,), start=checkpoint)  # its input gives way to the first stage's
    assert train(again, tmp_path / "second") == 0
    second = read_regressor(tmp_path / "second" / "checkpoints" / "last.safetensors")
    assert second.input_spec == found.input_spec
    assert second.provenance.source == made.source
    assert second.provenance.first_stage == made


def test_a_command_without_a_word_on_the_input_ends_with_one_line(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = foreign_file(tmp_path)
    argv = ["--data", str(cohort), "--init", "external", "--external", str(file)]
    with pytest.raises(SystemExit) as end:
        main([*argv, f"--width={WIDTH}", "--out", str(tmp_path / "run")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "theirs.pth: does not say what its input was" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_provenance_of_older_files_is_read() -> None:
    old = {"init": "random", "pretraining": "ubr", "iterations": 3, "config": {"seed": 1}}
    made = Provenance.model_validate(old)
    assert (made.source, made.source_sha256, made.began_through) == ("", "", "conv5")
    assert made.first_stage is made
