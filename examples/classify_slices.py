"""Which part of the body does a slice show? torchvision's VGG-16 from a trunk and from random.

    python examples/classify_slices.py vgg16.safetensors --train few/ct --test others/ct

Both folders hold ``*.nii.gz`` and ``slice_classes.csv``. Both starts meet the same slices in the
same order; prints the accuracy of each with every seed.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from labelled_scans import read_slices, read_trunk
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from ubr_pretrain.config import CommandParser, refuse
from ubr_pretrain.slice_classes import BODY_PARTS
from ubr_pretrain.trunk import scaled_channels


def build_vgg16(width: float) -> VGG:
    """Return torchvision's VGG-16 at a multiple of its channels, with a new last layer."""
    channels = [c if c == "M" else scaled_channels(c, width) for c in cfgs["D"]]
    net = VGG(make_layers(channels))
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Linear(channels[-2], len(BODY_PARTS))
    return net


def fine_tune(net: VGG, x: Tensor, y: Tensor, seed: int, iterations: int) -> None:
    """Train all layers on batches of 16 slices drawn by ``seed``."""
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.0003)
    for batch in np.random.default_rng(seed).integers(len(y), size=(iterations, 16)):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
        optimiser.step()


@torch.no_grad()
def accuracy(net: VGG, x: Tensor, y: Tensor) -> float:
    """Return the share of slices whose class is found."""
    found = torch.cat([net(part).argmax(1) for part in x.split(64)])
    return float((found == y).float().mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Fine-tune from both starts with every seed."""
    parser = CommandParser(prog="classify_slices.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("weights", type=Path, help="of export_backbone.py --layout torchvision")
    parser.add_argument("--train", type=Path, required=True, help="folder to learn from")
    parser.add_argument("--test", type=Path, required=True, help="folder to judge on, others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    parser.add_argument("--iterations", type=int, default=60, help="of 16 slices")
    options = parser.parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        trunk = read_trunk(options.weights)
        x, y = read_slices(options.train, trunk.input_spec, device)
        test_x, test_y = read_slices(options.test, trunk.input_spec, device)
    except (ValueError, OSError) as error:
        refuse(parser.prog, str(error))
    commonest = float((test_y == y.mode().values).float().mean())
    print(f"{len(y)} slices to learn from, {len(test_y)} to judge, commonest class {commonest:.3f}")
    for start in ("random", "ubr"):
        reached = []
        for seed in options.seeds:
            torch.manual_seed(seed)
            net = build_vgg16(trunk.width).to(device)
            if start == "ubr":
                net.features.load_state_dict(trunk.tensors)
            fine_tune(net, x, y, seed, options.iterations)
            reached.append(accuracy(net, test_x, test_y))
            print(f"seed {seed}  {start:6s}  accuracy {reached[-1]:.3f}", flush=True)
        print(f"{start:6s}  mean of {len(reached)} seeds {np.mean(reached):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
