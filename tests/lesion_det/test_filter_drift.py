"""How far filters moved: judged by plain loops, the definition of HSIC, and what must hold."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lesion_det import filter_drift
from lesion_det.cells import CellKey
from lesion_det.det_config import DetConfig, DetectorConfig, DetOptimiser, InputConfig
from lesion_det.detector import state_sha256
from lesion_det.filter_drift import (
    ArmDrift,
    Stage,
    compare_stages,
    measure_drift,
    sample_activations,
)
from lesion_det.filter_figures import draw_drift, draw_first_filters, filter_grid
from lesion_det.ground_truth import GroundTruth, read_ground_truth
from lesion_det.inference import read_detector
from lesion_det.initialization import make_start
from lesion_det.layer_similarity import filter_cosine, linear_cka, relative_l2
from lesion_det.train_det import train
from tests.lesion_det.toy_slices import ToyDeepLesion, write_toy_deeplesion
from ubr_pretrain.backbone import Backbone, Provenance, read_backbone, write_backbone
from ubr_pretrain.checkpoint import write_checkpoint
from ubr_pretrain.ct import IMAGENET_INPUT, InputSpec
from ubr_pretrain.network_input import normalise
from ubr_pretrain.regressor import (
    Regressor,
    read_regressor,
    regressor_backbone,
    regressor_state,
)
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.trunk import Trunk, torchvision_names
from ubr_pretrain.ubr_config import UbrConfig

WIDTH = 0.1
SPEC = InputSpec(std=(64.0, 64.0, 64.0))
Matrix = NDArray[np.float64]


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(n: int, p: int, seed: int) -> Matrix:
    return np.random.default_rng(seed).normal(1.0, 2.0, (n, p))


def gram_hsic(x: Matrix, y: Matrix) -> float:
    """Song et al., Eq. 5, as it is printed."""
    n = len(x)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float(total - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


class TestWeights:
    def test_they_are_the_printed_sums(self) -> None:
        a, b = tensor(3, 2, 2, 2), tensor(3, 2, 2, 2, seed=1)
        cosines, apart, length = [], 0.0, 0.0
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            u, v = (np.array(t, np.float64).ravel().tolist() for t in (one, other))
            dot = sum(p * q for p, q in zip(u, v, strict=True))
            norms = math.sqrt(sum(p * p for p in u)) * math.sqrt(sum(q * q for q in v))
            cosines.append(dot / norms)
            apart += sum((q - p) ** 2 for p, q in zip(u, v, strict=True))
            length += sum(p * p for p in u)
        assert filter_cosine(a, b) == pytest.approx(sum(cosines) / 3, abs=1e-12)
        assert relative_l2(a, b) == pytest.approx(math.sqrt(apart / length), abs=1e-12)

    def test_equal_weights_did_not_move(self) -> None:
        a = tensor(4, 3, 3, 3)
        assert filter_cosine(a, a.clone()) == pytest.approx(1, abs=1e-12)
        assert relative_l2(a, a.clone()) == 0
        assert relative_l2(torch.zeros(4, 3, 3, 3), a) is None

    def test_rescaled_filters_did_not_turn(self) -> None:
        a = tensor(4, 3, 3, 3)
        scale = torch.tensor([0.1, 1.0, 7.0, 300.0])[:, None, None, None]
        assert filter_cosine(a, a * scale) == pytest.approx(1, abs=1e-9)
        assert filter_cosine(a, -a) == pytest.approx(-1, abs=1e-9)
        assert relative_l2(a, 3 * a) == pytest.approx(2, abs=1e-6)


class TestCka:
    @given(st.integers(4, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
    def test_it_is_the_definition_by_gram_matrices(self, n: int, p: int, q: int, seed: int) -> None:
        x, y = features(n, p, seed), features(n, q, seed + 100)
        product = gram_hsic(x, x) * gram_hsic(y, y)
        if product <= 0:
            return
        assert linear_cka(x, y) == pytest.approx(gram_hsic(x, y) / math.sqrt(product), abs=1e-6)

    @given(st.integers(1, 6), st.floats(0.01, 100), st.integers(0, 99))
    def test_rotation_scale_and_shift_are_the_same_features(
        self, p: int, scale: float, seed: int
    ) -> None:
        x, y = features(40, p, seed), features(40, 3, seed + 100)
        turn, _ = np.linalg.qr(features(p, p, seed + 200))
        moved = scale * x @ turn + 5
        assert linear_cka(x, x) == pytest.approx(1, abs=1e-9)
        assert linear_cka(x, moved) == pytest.approx(1, abs=1e-9)
        assert linear_cka(moved, y) == pytest.approx(linear_cka(x, y), abs=1e-9)
        assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), abs=1e-12)

    def test_unrelated_features_are_unlike_even_with_as_many_features_as_samples(self) -> None:
        values = [linear_cka(features(64, 64, i), features(64, 64, i + 50)) for i in range(20)]
        assert abs(np.mean([v for v in values if v is not None])) < 0.02
        x, y = (f - f.mean(axis=0) for f in (features(64, 64, 0), features(64, 64, 50)))
        biased = np.square(x.T @ y).sum() / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
        assert biased > 0.4  # what the plain estimator calls unrelated

    def test_dead_layers_and_too_few_samples_have_none(self) -> None:
        x = features(20, 3, 0)
        assert linear_cka(x, np.zeros((20, 2))) is None
        assert linear_cka(x[:3], x[:3]) is None


class TestActivations:
    def trunk(self, seed: int = 0) -> Trunk:
        torch.manual_seed(seed)
        return Trunk("vgg16", WIDTH, stride=8)

    def images(self) -> list[NDArray[np.int16]]:
        rng = np.random.default_rng(0)
        return [rng.integers(-1000, 1000, (3, 40, size), dtype=np.int16) for size in (32, 48)]

    def test_the_last_layer_is_what_the_trunk_returns(self) -> None:
        stage, images = Stage("start", self.trunk(), SPEC), self.images()
        found = sample_activations(stage, images)
        assert list(found) == [name for name, _ in stage.trunk.convolutions()]
        expected = []
        for hu in images:
            maps = stage.trunk(normalise(torch.from_numpy(hu[None]).float(), SPEC))
            expected.append(maps[0].flatten(1).T.detach().numpy())
        rows = np.concatenate(expected)
        assert found["conv5_3"].shape == rows.shape
        assert np.sort(found["conv5_3"], axis=0) == pytest.approx(np.sort(rows, axis=0))
        assert found["conv1_1"].shape == (1024, 8)
        assert found["conv1_1"].min() == 0

    def test_two_trunks_are_sampled_at_the_same_positions(self) -> None:
        images = self.images()
        one = sample_activations(Stage("a", self.trunk(), SPEC), images)
        again = sample_activations(Stage("b", self.trunk(), SPEC), images)
        assert all(np.array_equal(one[layer], again[layer]) for layer in one)

    def test_permuted_filters_compute_the_same_though_they_all_moved(self) -> None:
        before, after = self.trunk(), self.trunk()
        order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for part in ("weight", "bias"):
                parameter = after.get_parameter(f"conv1_1.{part}")
                parameter.copy_(before.get_parameter(f"conv1_1.{part}")[order])
            after.get_parameter("conv1_2.weight").copy_(
                before.get_parameter("conv1_2.weight")[:, order]
            )
        stages = [Stage("start", before, SPEC), Stage("detector", after, SPEC)]
        rows = {row.layer: row for row in compare_stages("ubr", stages, self.images())}
        assert rows["conv1_1"].cosine < 0.7
        assert all(row.cka == pytest.approx(1, abs=1e-5) for row in rows.values())
        assert rows["conv2_1"].relative_l2 == 0

    def test_without_images_the_weights_alone_are_compared(self) -> None:
        stages = [Stage("start", self.trunk(), SPEC), Stage("detector", self.trunk(1), SPEC)]
        rows = compare_stages("random", stages, [])
        assert len(rows) == 13
        assert all(row.cka is None and abs(row.cosine) < 0.5 for row in rows)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyDeepLesion:
    return write_toy_deeplesion(tmp_path_factory.mktemp("toy"), {"train": 2, "val": 3})


@pytest.fixture(scope="module")
def truth(toy: ToyDeepLesion) -> GroundTruth:
    return read_ground_truth(toy.coco / "val.json")


class Grid:
    """One step of every arm; the regressors and ImageNet's file that they start from."""

    def __init__(self, toy: ToyDeepLesion, folder: Path) -> None:
        self.cells = folder / "cells"
        names = torchvision_names("vgg16")
        torch.manual_seed(11)
        imagenet = Trunk("vgg16", WIDTH)
        self.imagenet = folder / "vgg16.pth"
        torch.save({names[k]: v for k, v in imagenet.state_dict().items()}, self.imagenet)
        started = UbrConfig(width=WIDTH, batch_norm=True, seed=4, init="random")
        torch.manual_seed(4)
        regressor = Regressor(Trunk("vgg16", WIDTH, batch_norm=True))
        with torch.no_grad():
            for name, module in regressor.trunk.named_children():
                if name.startswith("bn_"):
                    module.weight.uniform_(0.5, 2)  # as a training leaves them
        made = Provenance(init="random", pretraining="ubr", config=started.model_dump(mode="json"))
        self.ubr = folder / "ubr.safetensors"
        write_checkpoint(self.ubr, regressor_state(regressor, SPEC, made), "ubr")
        self.ubr_imagenet = folder / "ubr_imagenet.safetensors"
        moved = Trunk("vgg16", WIDTH)
        moved.load_state_dict({k: 1.5 * v for k, v in imagenet.state_dict().items()})
        made = Provenance(init="imagenet", pretraining="ubr", config={"width": WIDTH})
        write_backbone(self.ubr_imagenet, Backbone(moved, IMAGENET_INPUT, made))
        files: dict[str, dict[str, Any]] = {
            "random": {},
            "ubr": {"ubr": self.ubr},
            "imagenet": {"imagenet_weights": self.imagenet},
            "ubr+imagenet": {"ubr": self.ubr_imagenet},
            "ubr-stats": {"ubr": self.ubr},
            "others": {
                "init": "external",
                "external": self.imagenet,
                "external_input": "imagenet",
            },
        }
        self.configs = {
            CellKey(arm, seed): self.config(toy, **{"init": arm, "seed": seed} | own)
            for seed in (0, 1)
            for arm, own in files.items()
        }
        for key in self.first:
            train(self.configs[key], self.cells / key.name)

    @property
    def first(self) -> list[CellKey]:
        return [key for key in self.configs if key.seed == 0]

    def config(self, toy: ToyDeepLesion, **own: Any) -> DetConfig:
        return DetConfig(
            coco=toy.coco,
            images=toy.images,
            width=WIDTH,
            input=InputConfig(max_px=64),
            random_input=SPEC,
            detector=DetectorConfig(
                stride=8,
                fc_dim=16,
                anchor_sizes_px=(12,),
                train_top_n=(50, 20),
                test_top_n=(50, 20),
            ),
            optimiser=DetOptimiser(name="adamw", lr=1e-3, schedule="drops"),
            iterations=1,
            batch=1,
            device="cpu",
            **own,
        )


@pytest.fixture(scope="module")
def grid(toy: ToyDeepLesion, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    return Grid(toy, tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module")
def drifts(grid: Grid, truth: GroundTruth) -> dict[str, ArmDrift]:
    found = measure_drift(grid.configs, grid.first, grid.cells, truth)
    return {drift.arm: drift for drift in found}


class TestTheirRuns:
    def test_every_run_records_that_it_started_from_what_its_file_holds(self, grid: Grid) -> None:
        names = torchvision_names("vgg16")
        theirs = torch.load(grid.imagenet, weights_only=True)
        imagenet = {ours: theirs[name] for ours, name in names.items()}
        wanted = {
            "imagenet": imagenet,
            "others": imagenet,
            "ubr": regressor_backbone(read_regressor(grid.ubr)).trunk.state_dict(),
            "ubr+imagenet": read_backbone(grid.ubr_imagenet).trunk.state_dict(),
        }
        for arm, tensors in wanted.items():
            run = grid.cells / f"{arm}-seed0"
            audit = RunFolder(run).read_manifest()["audit"]
            assert audit["trunk_sha256"] == state_sha256(tensors), arm
            assert (run / "weights.csv").read_text("utf-8").count(",True\n") == 26

    def test_all_arms_share_data_and_head(self, grid: Grid) -> None:
        audits = [RunFolder(grid.cells / key.name).read_manifest()["audit"] for key in grid.first]
        assert len({audit["order_sha256"] for audit in audits}) == 1
        assert len({audit["head_sha256"] for audit in audits}) == 1

    def test_a_detector_from_a_trunk_of_others_says_so(self, grid: Grid) -> None:
        run = grid.cells / "others-seed0"
        trained = read_detector(run / "checkpoints" / "last.safetensors")
        assert (trained.arm, trained.provenance.init) == ("external", "external")
        assert trained.detector.input_spec == IMAGENET_INPUT
        assert ",vgg16.pth (torchvision layout),8x3x3x3," in (run / "weights.csv").read_text()


class TestArms:
    def test_every_arm_has_its_steps(self, drifts: dict[str, ArmDrift]) -> None:
        detection = ["start -> detector"]
        steps = {arm: list(dict.fromkeys(r.step for r in d.layers)) for arm, d in drifts.items()}
        assert steps == {
            "random": detection,
            "ubr": ["ubr start -> ubr", "ubr start -> detector", *detection],
            "imagenet": detection,
            "ubr+imagenet": ["imagenet -> ubr", "imagenet -> detector", *detection],
            "ubr-stats": detection,
            "others": detection,
        }
        assert all(len(d.layers) == 13 * len(steps[arm]) for arm, d in drifts.items())
        assert all(drift.unknown == "" for drift in drifts.values())

    def test_a_detector_is_compared_with_its_own_start(
        self, grid: Grid, drifts: dict[str, ArmDrift]
    ) -> None:
        for arm, drift in drifts.items():
            moved = [row for row in drift.layers if row.step == "start -> detector"]
            assert all(0 < row.relative_l2 < 0.2 for row in moved if row.relative_l2 is not None)
            assert all(0.98 < row.cosine < 1 for row in moved), arm
            weight = make_start(grid.configs[CellKey(arm, 0)]).tensors["conv1_1.weight"]
            assert torch.equal(drift.first_filters["start"], weight)

    def test_a_regressor_that_only_rescaled_its_filters_turned_none(
        self, drifts: dict[str, ArmDrift]
    ) -> None:
        for row in drifts["ubr"].layers:
            if row.step == "ubr start -> ubr":  # its batch norms moved, its convolutions did not
                assert row.cosine == pytest.approx(1, abs=1e-6)
                assert row.relative_l2 is None
        for row in drifts["ubr+imagenet"].layers:
            if row.step == "imagenet -> ubr":
                assert row.relative_l2 == pytest.approx(0.5, abs=1e-6)

    def test_only_the_first_finished_seed_of_an_arm_is_measured(
        self, grid: Grid, truth: GroundTruth
    ) -> None:
        (one,) = measure_drift(grid.configs, [CellKey("random", 0)], grid.cells, truth)
        assert one.arm == "random"
        assert measure_drift(grid.configs, [], grid.cells, truth) == ()

    def test_it_is_measured_once(
        self,
        grid: Grid,
        truth: GroundTruth,
        drifts: dict[str, ArmDrift],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(filter_drift, "sample_activations", lambda *_: pytest.fail("again"))
        for again in measure_drift(grid.configs, grid.first, grid.cells, truth):
            before = drifts[again.arm]
            assert again.layers == before.layers
            assert list(again.first_filters) == list(before.first_filters)
            for name, filters in before.first_filters.items():
                assert torch.equal(again.first_filters[name], filters)

    def test_without_the_arm_imagenet_the_step_from_it_is_said_to_be_unknown(
        self, grid: Grid, truth: GroundTruth
    ) -> None:
        key = CellKey("ubr+imagenet", 0)
        (drift,) = measure_drift({key: grid.configs[key]}, [key], grid.cells, truth)
        assert {row.step for row in drift.layers} == {"start -> detector"}
        assert drift.unknown == "the arm imagenet, where its regressor began, is not compared"

    def test_a_cell_of_another_start_is_not_measured(
        self, grid: Grid, toy: ToyDeepLesion, truth: GroundTruth, tmp_path: Path
    ) -> None:
        key = CellKey("random", 0)
        shutil.copytree(grid.cells / key.name, tmp_path / key.name)
        (tmp_path / key.name / filter_drift.FILE).unlink(missing_ok=True)
        other = {key: grid.config(toy, init="random", seed=9)}
        (drift,) = measure_drift(other, [key], tmp_path, truth)
        assert drift.layers == ()
        assert drift.unknown == "random-seed0: was trained from another start than the arm's"
        last = tmp_path / key.name / "checkpoints" / "last.safetensors"
        last.unlink()
        (absent,) = measure_drift(grid.configs, [key], tmp_path, truth)
        assert absent.unknown == "random-seed0/checkpoints/last.safetensors: no such file"


class TestFigures:
    def test_every_arm_is_drawn_in_its_columns(self, drifts: dict[str, ArmDrift]) -> None:
        rows = [row for drift in drifts.values() for row in drift.layers]
        svg = draw_drift(rows)
        for words in (
            "ubr+imagenet: imagenet → ubr",
            "ubr: ubr start → ubr",
            "ubr-stats",
            "CKA of the activations",
            "pretraining",
        ):
            assert words in svg, words
        alone = draw_drift([row for row in rows if row.arm == "random"])
        assert "pretraining" not in alone
        assert draw_drift([]).startswith("<svg")

    def test_folded_norms_are_said_where_nothing_can_be_drawn(
        self, drifts: dict[str, ArmDrift]
    ) -> None:
        assert "folded batch norms rescaled every filter" in draw_drift(drifts["ubr"].layers)
        assert "folded" not in draw_drift(drifts["random"].layers)

    def test_stages_of_an_arm_share_one_scale(self, drifts: dict[str, ArmDrift]) -> None:
        svg = draw_first_filters([drifts["ubr+imagenet"], drifts["random"]])
        limit = max(float(t.abs().max()) for t in drifts["ubr+imagenet"].first_filters.values())
        for stage in ("imagenet", "start", "detector"):
            assert f"ubr+imagenet: {stage}, ± {limit:.2g}" in svg
        assert svg.count("<image") == 5
        assert draw_first_filters([ArmDrift("random", unknown="no file")]).startswith("<svg")

    def test_a_grid_holds_every_filter_once_in_order(self) -> None:
        filters = np.arange(20 * 9, dtype=np.float64).reshape(20, 3, 3, 1) / 1000
        grid = filter_grid(filters)
        assert grid.shape == (9, 65, 1)
        assert np.array_equal(grid[1:4, 1:4], filters[0])
        assert np.array_equal(grid[5:8, 13:16], filters[19])
        assert np.all(grid[0] == 1)
