"""Every arm gets the weights that its name says, or a refusal."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lesion_det.det_config import Arm, DetConfig, DetectorConfig
from lesion_det.detector import Detector, state_sha256
from lesion_det.initialization import (
    Start,
    make_start,
    redraw_by_statistics,
    weight_table,
    weight_table_csv,
    weight_table_text,
)
from ubr_pretrain.backbone import Backbone, Provenance, write_backbone
from ubr_pretrain.checkpoint import file_sha256, write_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.regressor import Regressor, regressor_state
from ubr_pretrain.trunk import Trunk, torchvision_names

WIDTH = 0.1
UBR_INPUT = InputSpec(scale=1.0, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))


def random_trunk(seed: int, width: float = WIDTH) -> Trunk:
    torch.manual_seed(seed)
    return Trunk("vgg16", width)


def ubr_file(folder: Path, init: str = "random", pretraining: str = "ubr") -> Path:
    path = folder / f"{init}_{pretraining}.safetensors"
    provenance = Provenance(init=init, pretraining=pretraining)  # type: ignore[arg-type]
    write_backbone(path, Backbone(random_trunk(7), UBR_INPUT, provenance))
    return path


def imagenet_file(folder: Path) -> Path:
    path = folder / "vgg16.pth"
    tensors = random_trunk(8).state_dict()
    names = torchvision_names("vgg16")
    torch.save({names[k]: v for k, v in tensors.items()}, path)
    return path


def start(arm: Arm, ubr: Path | None = None, imagenet: Path | None = None, **more: Any) -> Start:
    settings = {"init": arm, "ubr": ubr, "imagenet_weights": imagenet, "seed": 3, "width": WIDTH}
    detector = DetectorConfig(stride=8)
    return make_start(DetConfig(coco=Path("coco"), detector=detector, **settings | more))


class TestArms:
    def test_random_is_he_and_a_function_of_the_seed(self) -> None:
        one, again = start("random"), start("random")
        assert state_sha256(one.tensors) == state_sha256(again.tensors)
        weight = one.tensors["conv4_2.weight"]
        assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * weight.shape[1])), rel=0.05)
        assert not any(t.any() for name, t in one.tensors.items() if name.endswith("bias"))
        assert one.input_spec == InputSpec()

    @pytest.mark.parametrize(("arm", "init"), [("ubr", "random"), ("ubr+imagenet", "imagenet")])
    def test_ubr_arms_hold_the_files_tensors_and_input(
        self, tmp_path: Path, arm: Arm, init: str
    ) -> None:
        found = start(arm, ubr_file(tmp_path, init))
        wanted = random_trunk(7).state_dict()
        assert found.trunk.state_dict().keys() == wanted.keys()
        assert all(torch.equal(found.trunk.state_dict()[k], t) for k, t in wanted.items())
        assert found.input_spec == UBR_INPUT
        assert found.trunk.stride == 8
        assert len(found.source_sha256) == 64

    def test_a_training_checkpoint_gives_the_same_start_as_its_export(self, tmp_path: Path) -> None:
        provenance = Provenance(init="random", pretraining="ubr")
        checkpoint = tmp_path / "best.safetensors"
        state = regressor_state(Regressor(random_trunk(7)), UBR_INPUT, provenance)
        write_checkpoint(checkpoint, state, "ubr")
        exported = start("ubr", ubr_file(tmp_path))
        assert state_sha256(start("ubr", checkpoint).tensors) == state_sha256(exported.tensors)

    def test_imagenet_comes_from_a_file_of_torchvisions_layout(self, tmp_path: Path) -> None:
        found = start("imagenet", imagenet=imagenet_file(tmp_path))
        wanted = random_trunk(8).state_dict()
        assert all(torch.equal(found.trunk.state_dict()[k], t) for k, t in wanted.items())
        assert found.input_spec == IMAGENET_INPUT
        assert found.provenance.init == "imagenet"

    def test_a_stats_control_keeps_the_scale_and_nothing_else(self, tmp_path: Path) -> None:
        control = start("ubr-stats", ubr_file(tmp_path))
        source = start("ubr", ubr_file(tmp_path))
        assert control.input_spec == source.input_spec
        for name in ("conv4_2.weight", "conv5_3.weight"):
            one, other = control.tensors[name].flatten(), source.tensors[name].flatten()
            assert one.std().item() == pytest.approx(other.std().item(), rel=0.05)
            assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1].item()) < 0.05

    @given(
        mean=st.floats(-3, 3),
        sd=st.sampled_from([0.0, 1e-3, 0.5, 4.0]),
        shape=st.sampled_from([(8,), (64,), (16, 8, 3, 3)]),
        seed=st.integers(0, 99),
    )
    def test_a_redrawn_tensor_is_gaussian_with_the_sources_mean_and_sd(
        self, mean: float, sd: float, shape: tuple[int, ...], seed: int
    ) -> None:
        source = mean + sd * torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        drawn = self.redraw(source, seed)
        assert drawn.shape == source.shape
        assert torch.equal(drawn, self.redraw(source, seed))
        if sd == 0:
            assert torch.allclose(drawn, source, atol=1e-5)
            return
        z = (drawn - source.mean()) / source.std(correction=0)
        assert abs(z.mean().item()) < 5 / math.sqrt(z.numel())
        assert abs(z.square().mean().item() - 1) < 6 * math.sqrt(2 / z.numel())

    @given(st.integers(0, 99))
    def test_a_redrawn_tensor_knows_nothing_of_where_the_sources_values_stood(
        self, seed: int
    ) -> None:
        source = torch.rand(40, generator=torch.Generator().manual_seed(seed))
        shuffled = source[torch.randperm(40, generator=torch.Generator().manual_seed(seed))]
        torch.testing.assert_close(self.redraw(source, 1), self.redraw(shuffled, 1))

    def test_every_weight_and_bias_is_redrawn_by_its_own_statistics(self, tmp_path: Path) -> None:
        file = tmp_path / "vgg16.pth"
        trunk = random_trunk(8)
        for place, conv in enumerate(trunk.children()):
            torch.nn.init.normal_(conv.bias, mean=10.0 * place, std=0.1 + place)  # type: ignore[arg-type]
        names = torchvision_names("vgg16")
        torch.save({names[k]: v for k, v in trunk.state_dict().items()}, file)
        control = start("imagenet-stats", imagenet=file)
        assert control.input_spec == IMAGENET_INPUT
        assert control.source == "Gaussians with mean and sd of vgg16.pth, seed 3"
        for name, source in trunk.state_dict().items():
            drawn = control.tensors[name]
            assert not torch.equal(drawn, source)
            error = (drawn.mean() - source.mean()) / source.std(correction=0)
            assert abs(error.item()) < 5 / math.sqrt(source.numel()), name

    def redraw(self, source: torch.Tensor, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return redraw_by_statistics({"w": source}, generator)["w"]


class TestExternal:
    """Layouts and refusals of files: test_external_trunk.py."""

    def test_the_arm_holds_the_files_tensors_and_says_which_layout_it_found(
        self, tmp_path: Path
    ) -> None:
        file = imagenet_file(tmp_path)
        found = start("external", external=file, external_input="imagenet")
        wanted = random_trunk(8).state_dict()
        assert all(torch.equal(found.trunk.state_dict()[k], t) for k, t in wanted.items())
        assert found.input_spec == IMAGENET_INPUT
        assert found.provenance.init == "external"
        assert found.source == "vgg16.pth (torchvision layout)"
        assert found.source_sha256 == file_sha256(file)
        assert found.trunk.stride == 8

    def test_an_input_of_its_own_is_the_detectors(self, tmp_path: Path) -> None:
        file = imagenet_file(tmp_path)
        assert start("external", external=file, external_input=UBR_INPUT).input_spec == UBR_INPUT

    def test_a_file_of_ours_brings_its_input(self, tmp_path: Path) -> None:
        found = start("external", external=ubr_file(tmp_path))
        assert found.input_spec == UBR_INPUT
        assert found.provenance.pretraining == "ubr"

    def test_without_a_file_or_an_input_it_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"--init external needs --external FILE"):
            start("external")
        with pytest.raises(ValueError, match=r"pass --external_input imagenet"):
            start("external", external=imagenet_file(tmp_path))

    @pytest.mark.parametrize("arm", ["random", "imagenet", "imagenet-stats"])
    def test_other_arms_refuse_its_flags(self, tmp_path: Path, arm: Arm) -> None:
        with pytest.raises(ValueError, match=rf"--init {arm} does not use --external FILE"):
            start(arm, external=imagenet_file(tmp_path))
        with pytest.raises(ValueError, match=rf"--init {arm} does not use --external_input"):
            start(arm, external_input="imagenet")

    def test_it_refuses_the_files_of_other_arms(self, tmp_path: Path) -> None:
        file = imagenet_file(tmp_path)
        with pytest.raises(ValueError, match=r"--init external does not use --imagenet-weights"):
            start("external", imagenet=file, external=file)
        with pytest.raises(ValueError, match=r"--init external does not use --ubr"):
            start("external", ubr_file(tmp_path), external=file)

    def test_every_tensor_of_it_is_in_the_weight_table(self, tmp_path: Path) -> None:
        begun = start("external", external=imagenet_file(tmp_path), external_input="imagenet")
        config = DetectorConfig(stride=8, fc_dim=16, anchor_sizes_px=(16,))
        live = Detector(begun.trunk, begun.input_spec, config, 0).state_dict()
        rows = weight_table(begun, live, "drawn")
        assert sum(row.loaded for row in rows) == 26
        assert {row.source for row in rows if row.loaded} == {begun.source}


def transferred(name: str, through: str) -> bool:
    return name.partition("_")[0] <= through


class TestPartialTransfer:
    """Blocks through some block come from the source, those behind it from the random arm."""

    @given(st.sampled_from(["conv1", "conv2", "conv3", "conv4", "conv5"]))
    def test_every_tensor_is_the_sources_or_the_random_arms(self, through: str) -> None:
        with TemporaryDirectory() as folder:
            found = start("ubr", ubr_file(Path(folder)), transfer_through=through)
        source, drawn = random_trunk(7).state_dict(), start("random").tensors
        for name, tensor in found.trunk.state_dict().items():
            wanted = source if transferred(name, through) else drawn
            assert torch.equal(tensor, wanted[name]), name
        assert found.input_spec == UBR_INPUT
        assert found.provenance.pretraining == "ubr"

    def test_all_through_conv5_is_the_arm_itself(self, tmp_path: Path) -> None:
        whole, asked = (
            start("ubr", ubr_file(tmp_path), **more) for more in ({}, {"transfer_through": "conv5"})
        )
        assert state_sha256(whole.tensors) == state_sha256(asked.tensors)
        assert whole.transferred == frozenset(whole.tensors)

    @pytest.mark.parametrize("arm", ["ubr-stats", "imagenet-stats", "imagenet", "external"])
    def test_controls_and_other_sources_are_transferred_in_part_too(
        self, tmp_path: Path, arm: Arm
    ) -> None:
        files: dict[str, Any] = {
            "ubr-stats": {"ubr": ubr_file(tmp_path)},
            "external": {"external": imagenet_file(tmp_path), "external_input": "imagenet"},
        }.get(arm, {"imagenet": imagenet_file(tmp_path)})
        whole, part = start(arm, **files), start(arm, **files, transfer_through="conv2")
        drawn = start("random").tensors
        for name, tensor in part.tensors.items():
            wanted = whole.tensors if transferred(name, "conv2") else drawn
            assert torch.equal(tensor, wanted[name]), name
        assert part.input_spec == whole.input_spec

    def test_the_weight_table_says_row_by_row_what_was_loaded_and_what_drawn(
        self, tmp_path: Path
    ) -> None:
        begun = start("ubr", ubr_file(tmp_path), transfer_through="conv3")
        config = DetectorConfig(stride=8, fc_dim=16, anchor_sizes_px=(16,))
        live = Detector(begun.trunk, begun.input_spec, config, 0).state_dict()
        rows = weight_table(begun, live, "drawn, seed 0")
        for row in rows:
            trunk, _, name = row.tensor.partition(".")
            if trunk != "trunk":
                assert (row.source, row.loaded) == ("drawn, seed 0", False)
            elif transferred(name, "conv3"):
                assert (row.source, row.loaded) == ("random_ubr.safetensors", True)
            else:
                assert (row.source, row.loaded) == ("He, seed 3", False)
        assert weight_table_text(rows).endswith("14 of 40 tensors loaded from a file")

    def test_a_random_arm_has_nothing_to_transfer(self) -> None:
        with pytest.raises(ValueError, match=r"--init random does not use --transfer_through"):
            start("random", transfer_through="conv3")


class TestOfExternalOrigin:
    """A regressor that began from a trunk of others, or from a part of one, is no paper's arm."""

    @pytest.mark.parametrize(
        ("arm", "init", "through", "words"),
        [
            ("ubr", "external", "conv5", "init external, pretraining ubr"),
            ("ubr+imagenet", "external", "conv5", "init external, pretraining ubr"),
            ("ubr+imagenet", "imagenet", "conv2", "init imagenet through conv2, pretraining ubr"),
        ],
    )
    def test_it_is_refused_with_the_flag_that_takes_it(
        self, tmp_path: Path, arm: Arm, init: Any, through: str, words: str
    ) -> None:
        path = tmp_path / "u.safetensors"
        made = Provenance(init=init, pretraining="ubr", config={"transfer_through": through})
        write_backbone(path, Backbone(random_trunk(7), UBR_INPUT, made))
        message = rf"was made with {words}; .* or give its export as --init external --external"
        with pytest.raises(ValueError, match=message):
            start(arm, path)
        found = start("external", external=path)
        assert found.provenance == made
        assert found.input_spec == UBR_INPUT
        assert len(found.transferred) == 26

    def test_a_training_checkpoint_is_to_be_exported_first(self, tmp_path: Path) -> None:
        path = tmp_path / "best.safetensors"
        made = Provenance(init="external", pretraining="ubr")
        write_checkpoint(path, regressor_state(Regressor(random_trunk(7)), UBR_INPUT, made), "ubr")
        with pytest.raises(ValueError, match=r"'ubr' checkpoint; .* with export_backbone\.py"):
            start("external", external=path)


class TestRefusals:
    @pytest.mark.parametrize(
        ("arm", "init", "pretraining"),
        [
            ("ubr", "imagenet", "ubr"),
            ("ubr", "random", "none"),
            ("ubr-stats", "imagenet", "ubr"),
            ("ubr+imagenet", "random", "ubr"),
            ("ubr+imagenet", "imagenet", "none"),
        ],
    )
    def test_C15_a_file_that_was_made_for_another_arm(
        self, tmp_path: Path, arm: Arm, init: str, pretraining: str
    ) -> None:
        """Refused: the file says how it was made, and --init asks for another start."""
        file = ubr_file(tmp_path, init, pretraining)
        message = rf"was made with init {init}, pretraining {pretraining}; --init .* needs init"
        with pytest.raises(ValueError, match=message) as refusal:
            start(arm, file)
        assert "\n" not in str(refusal.value)

    @pytest.mark.parametrize(
        ("name", "what"),
        [
            ("vgg16.safetensors", "a safetensors file, but not a checkpoint of this project"),
            ("vgg16.pth", "not a safetensors file"),
            ("vgg16.onnx", "not a safetensors file"),
        ],
    )
    def test_weights_in_another_layout_are_refused_with_the_flag_that_takes_them(
        self, tmp_path: Path, name: str, what: str
    ) -> None:
        file = tmp_path / name
        if file.suffix == ".safetensors":
            save_file({"features.0.weight": torch.zeros(2, 3, 3, 3)}, file)
        else:
            torch.save({"features.0.weight": torch.zeros(2, 3, 3, 3)}, file)
        with pytest.raises(ValueError, match=r"vgg16") as refusal:
            start("ubr", file)
        assert str(refusal.value) == (
            f"{file}: {what}; --ubr takes a checkpoint of train_ubr.py or its export in the ubr "
            "layout; give one in another layout as --external (train_det.py: --init external "
            "--external FILE, compare_inits.py: --external NAME=FILE)"
        )
        file.unlink()
        with pytest.raises(ValueError, match=r"vgg16\.\w+: no such file$"):
            start("ubr", file)

    @pytest.mark.parametrize("arm", ["ubr", "ubr+imagenet", "ubr-stats"])
    def test_an_arm_without_its_file(self, arm: Arm) -> None:
        with pytest.raises(ValueError, match=r"needs --ubr CHECKPOINT"):
            start(arm)

    @pytest.mark.parametrize("arm", ["random", "imagenet"])
    def test_a_file_that_the_arm_would_ignore(self, tmp_path: Path, arm: Arm) -> None:
        with pytest.raises(ValueError, match=r"does not use --ubr CHECKPOINT"):
            start(arm, ubr_file(tmp_path))

    def test_imagenet_weights_for_another_arm(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"--init random does not use --imagenet-weights"):
            start("random", imagenet=imagenet_file(tmp_path))

    def test_another_width(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.safetensors"
        made = Provenance(init="random", pretraining="ubr")
        write_backbone(path, Backbone(random_trunk(1, width=0.2), UBR_INPUT, made))
        with pytest.raises(ValueError, match=r"wide.safetensors: is vgg16 of width 0.2, the det"):
            start("ubr", path)

    def test_a_detector_checkpoint_is_no_backbone(self, tmp_path: Path) -> None:
        write_checkpoint(tmp_path / "d.safetensors", {"iteration": 1}, "detector")
        with pytest.raises(ValueError, match=r"is a 'detector' file, expected a 'ubr' or"):
            start("ubr", tmp_path / "d.safetensors")

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        path = ubr_file(tmp_path)
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="E-CKPT-HASH"):
            start("ubr", path)


class TestWeightTable:
    def detector(self, begun: Start) -> Detector:
        config = DetectorConfig(stride=8, fc_dim=16, anchor_sizes_px=(16,))
        return Detector(begun.trunk, begun.input_spec, config, 0)

    def test_it_accounts_for_every_tensor_of_the_detector(self, tmp_path: Path) -> None:
        begun = start("ubr", ubr_file(tmp_path))
        live = self.detector(begun).state_dict()
        rows = weight_table(begun, live, "drawn, seed 0")
        assert [row.tensor for row in rows] == list(live)
        assert sum(row.loaded for row in rows) == 26
        assert {row.source for row in rows if row.loaded} == {"random_ubr.safetensors"}
        assert {row.source for row in rows if not row.loaded} == {"drawn, seed 0"}
        first = weight_table_csv(rows).splitlines()[1]
        norm = live["trunk.conv1_1.weight"].double().square().sum().sqrt().item()
        assert first.startswith("trunk.conv1_1.weight,random_ubr.safetensors,8x3x3x3,")
        assert float(first.split(",")[3]) == pytest.approx(norm)
        assert first.endswith(",True")
        assert weight_table_text(rows).endswith("26 of 40 tensors loaded from a file")

    def test_nothing_of_a_random_arm_counts_as_loaded(self) -> None:
        begun = start("random")
        rows = weight_table(begun, self.detector(begun).state_dict(), "drawn, seed 0")
        assert not any(row.loaded for row in rows)

    def test_one_wrong_bit_in_the_live_trunk_is_noticed(self, tmp_path: Path) -> None:
        begun = start("ubr", ubr_file(tmp_path))
        detector = self.detector(begun)
        with torch.no_grad():
            detector.trunk.get_parameter("conv5_3.weight")[0, 0, 0, 0] += 1e-6
        with pytest.raises(AssertionError, match=r"trunk\.conv5_3\.weight: not what"):
            weight_table(begun, detector.state_dict(), "drawn")
