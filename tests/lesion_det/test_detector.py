"""Faster R-CNN on a trunk: geometry, seeding, what its losses and answers depend on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lesion_det.det_config import DetectorConfig
from lesion_det.detector import (
    ROI_SIZE,
    Detector,
    RoIAlign,
    SeededSampler,
    head_tensors,
    state_sha256,
)
from ubr_pretrain.ct import AIR_HU, IMAGENET_INPUT, InputSpec
from ubr_pretrain.trunk import Trunk

SMALL = DetectorConfig(
    stride=8, fc_dim=16, anchor_sizes_px=(12, 24), train_top_n=(200, 50), test_top_n=(200, 50)
)


def small_detector(
    trunk_seed: int = 0, head_seed: int = 0, spec: InputSpec = IMAGENET_INPUT
) -> Detector:
    torch.manual_seed(trunk_seed)
    return Detector(Trunk("vgg16", 0.1, stride=8), spec, SMALL, head_seed)


def image(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-200, 200, (3, height, width), generator=generator, dtype=torch.int16)


BOXES = torch.tensor([[10.0, 12.0, 30.0, 34.0]])


class TestStart:
    def test_the_head_is_the_same_whatever_the_trunk_and_its_input(self) -> None:
        one = small_detector(trunk_seed=1)
        torch.rand(100)
        other = small_detector(trunk_seed=2, spec=InputSpec())
        assert state_sha256(head_tensors(one.state_dict())) == state_sha256(
            head_tensors(other.state_dict())
        )
        assert state_sha256(one.trunk.state_dict()) != state_sha256(other.trunk.state_dict())

    def test_another_seed_gives_another_head(self) -> None:
        one, other = small_detector(head_seed=0), small_detector(head_seed=1)
        assert state_sha256(head_tensors(one.state_dict())) != state_sha256(
            head_tensors(other.state_dict())
        )

    def test_head_and_trunk_are_the_whole_state_and_all_of_it_is_trained(self) -> None:
        detector = small_detector()
        head = head_tensors(detector.state_dict())
        assert len(head) + len(detector.trunk.state_dict()) == len(detector.state_dict())
        assert all(p.requires_grad for p in detector.parameters())
        assert len(head) == 14

    def test_a_trunk_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ValueError, match="stride 16, batch norm False: the detector needs"):
            Detector(Trunk("vgg16", 0.1), IMAGENET_INPUT, SMALL, 0)
        trunk = Trunk("vgg16", 0.1, stride=8, batch_norm=True)
        with pytest.raises(ValueError, match="batch norm True"):
            Detector(trunk, IMAGENET_INPUT, SMALL, 0)


class TestSeededSampler:
    @given(
        st.lists(st.sampled_from([-1.0, 0.0, 1.0]), max_size=80),
        st.integers(0, 2**63 - 1),
        st.integers(2, 32),
    )
    def test_it_fills_the_batch_from_the_eligible_and_repeats_itself(
        self, labels: list[float], seed: int, batch: int
    ) -> None:
        label = torch.tensor(labels)
        sampler = SeededSampler(batch, 0.25)
        sampler.seeds = [seed]
        (foreground,), (background,) = sampler([label])
        num_foreground = min(int(batch * 0.25), int((label == 1).sum()))
        assert int(foreground.sum()) == num_foreground
        assert int(background.sum()) == min(batch - num_foreground, int((label == 0).sum()))
        assert (label[foreground] == 1).all()
        assert (label[background] == 0).all()
        torch.rand(3)  # the global generator has no say
        (again,), _ = sampler([label])
        assert torch.equal(again, foreground)

    def test_a_missing_seed_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            SeededSampler(4, 0.5)([torch.zeros(3)])


class TestGeometry:
    @pytest.mark.parametrize("stride", [8, 16])
    def test_pooling_reads_the_features_under_the_box(self, stride: int) -> None:
        """A map of its own coordinates, pooled, gives the coordinates of the bins' centres."""
        h, w = 20, 24
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        features = {"0": torch.stack([x, y])[None].float() * stride}
        box = torch.tensor([[5.0, 4.0, 12.0, 15.0]]) * stride
        pooled = RoIAlign(stride)(features, [box], None)[0]
        steps = (torch.arange(ROI_SIZE) + 0.5) / ROI_SIZE
        torch.testing.assert_close(pooled[0, 0], (5 + 7 * steps) * stride)
        torch.testing.assert_close(pooled[1, :, 0], (4 + 11 * steps) * stride)

    def test_anchors_lie_on_the_stride_whatever_the_size(self) -> None:
        detector = small_detector()
        images, features = detector._features([image(70, 91), image(33, 50)])
        assert images.tensors.shape[-2:] == (72, 96)
        assert features["0"].shape[-2:] == (9, 12)
        assert images.image_sizes == [(70, 91), (33, 50)]
        anchors = detector.rpn.anchor_generator(images, [features["0"]])[0]
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        assert set(centres[:, 0].tolist()) == {8.0 * i for i in range(12)}
        assert set(centres[:, 1].tolist()) == {8.0 * i for i in range(9)}

    def test_padding_looks_like_air(self) -> None:
        detector = small_detector()
        images, _ = detector._features([image(64, 64), image(40, 40)])
        whole, _ = detector._features([torch.full((3, 64, 64), AIR_HU, dtype=torch.int16)])
        assert torch.equal(images.tensors[1, :, 40:], whole.tensors[0, :, 40:])


class TestLosses:
    def test_they_depend_on_the_seeds_and_not_on_the_global_generator(self) -> None:
        detector = small_detector().train()
        inputs = [image(64, 72), image(64, 64)]

        def losses(seeds: list[int]) -> list[float]:
            torch.rand(17)
            return [v.item() for v in detector.losses(inputs, [BOXES, BOXES], seeds).values()]

        assert losses([1, 2]) == losses([1, 2])
        assert losses([1, 2]) != losses([3, 4])

    def test_the_batch_is_the_mean_of_its_images(self) -> None:
        detector = small_detector().train()
        inputs = [image(64, 64, seed=1), image(64, 64, seed=2)]
        both = detector.losses(inputs, [BOXES, BOXES], [5, 6])
        alone = [detector.losses([i], [BOXES], [s]) for i, s in zip(inputs, (5, 6), strict=True)]
        for name, value in both.items():
            mean = (alone[0][name] + alone[1][name]) / 2
            torch.testing.assert_close(value, mean, atol=1e-5, rtol=1e-4)

    def test_an_image_without_lesions_has_finite_losses(self) -> None:
        losses = small_detector().train().losses([image(64, 64)], [torch.empty(0, 4)], [1])
        assert all(torch.isfinite(v) for v in losses.values())
        assert losses["rpn_box"].item() == 0


class TestDetect:
    def test_detections_lie_inside_the_image_best_first(self) -> None:
        boxes, scores = small_detector().eval().detect(image(70, 90))
        assert 0 < len(boxes) <= SMALL.max_detections
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= 90
        assert boxes[:, 3].max() <= 70
        assert torch.equal(scores, scores.sort(descending=True).values)
        assert (boxes[:, 2:] > boxes[:, :2]).all()
