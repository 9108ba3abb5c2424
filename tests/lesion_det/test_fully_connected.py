"""fc6 and fc7 read a pooled region in the order in which VGG-16's classifier reads its last map."""

import pytest
import torch
import torchvision

from lesion_det.det_config import DetectorConfig
from lesion_det.detector import ROI_SIZE, Detector
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk


@pytest.fixture(scope="module")
def detector() -> Detector:
    """As wide as VGG-16 (512 channels behind conv5_3), with a few outputs of fc6."""
    with torch.device("meta"):
        trunk = Trunk("vgg16", 1.0)
    spec = InputSpec(scale=1.0, mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3))
    return Detector(trunk, spec, DetectorConfig(fc_dim=6), head_seed=None)


def test_C12_fc6_reads_a_region_as_vgg16s_classifier_does(detector: Detector) -> None:
    """With the same weights torchvision's VGG-16 and fc6 give equal numbers for a 512x7x7 map:
    channels, then rows, then columns."""
    region = torch.randn(3, 512, ROI_SIZE, ROI_SIZE, generator=torch.Generator().manual_seed(0))
    fc6 = detector.roi_heads.box_head.fc6
    with torch.device("meta"):
        theirs = torchvision.models.VGG(torch.nn.Identity(), num_classes=6, init_weights=False)
    assert theirs.classifier[0].in_features == fc6.in_features == 512 * 7 * 7
    theirs.classifier = torch.nn.Sequential(fc6)
    with torch.no_grad():
        ours = detector.roi_heads.box_head.fc6(region.flatten(1))
        torch.testing.assert_close(theirs.eval()(region), ours, rtol=0, atol=0)
        whole = detector.roi_heads.box_head(region)
        head = torch.relu(detector.roi_heads.box_head.fc7(torch.relu(ours)))
        torch.testing.assert_close(whole, head, rtol=0, atol=0)


def test_C12_the_order_is_channel_row_column_by_hand(detector: Detector) -> None:
    """Weight c x 49 + y x 7 + x of fc6 meets channel c, row y, column x; no other order fits."""
    fc6 = detector.roi_heads.box_head.fc6
    for channel, row, column in ((0, 0, 1), (0, 6, 0), (511, 3, 5), (7, 2, 6)):
        region = torch.zeros(1, 512, ROI_SIZE, ROI_SIZE)
        region[0, channel, row, column] = 1.0
        with torch.no_grad():
            found = fc6(region.flatten(1))[0] - fc6.bias
            wanted = fc6.weight[:, channel * 49 + row * 7 + column]
            other = fc6.weight[:, (row * 7 + column) * 512 + channel]
        torch.testing.assert_close(found, wanted)
        assert not torch.allclose(found, other)
