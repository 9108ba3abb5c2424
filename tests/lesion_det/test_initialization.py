"""Every arm gets the weights that its name says, or a refusal."""

import math
from pathlib import Path

import pytest
import torch

from lesion_det.det_config import Arm, DetectorConfig
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
from ubr_pretrain.checkpoint import write_checkpoint
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


def start(arm: Arm, ubr: Path | None = None, imagenet: Path | None = None) -> Start:
    return make_start(
        arm,
        width=WIDTH,
        stride=8,
        seed=3,
        random_input=InputSpec(),
        ubr=ubr,
        imagenet_weights=imagenet,
    )


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

    def test_redrawn_statistics_are_those_of_the_source(self) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = redraw_by_statistics({"w": torch.linspace(2, 4, 20_000)}, generator)["w"]
        assert drawn.mean().item() == pytest.approx(3, abs=0.03)
        assert drawn.std().item() == pytest.approx(math.sqrt(4 / 12), rel=0.03)


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
    def test_c15_a_file_that_was_made_for_another_arm(
        self, tmp_path: Path, arm: Arm, init: str, pretraining: str
    ) -> None:
        file = ubr_file(tmp_path, init, pretraining)
        message = rf"was made with init {init}, pretraining {pretraining}; --init .* needs init"
        with pytest.raises(ValueError, match=message) as refusal:
            start(arm, file)
        assert "\n" not in str(refusal.value)

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
