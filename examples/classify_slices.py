"""Which part of the body does a slice show? torchvision's VGG-16 from a trunk and from random.

    python examples/classify_slices.py vgg16.safetensors --train few/ct --test others/ct

Both folders hold ``*.nii.gz`` and ``slice_classes.csv``. Prints the accuracy of both starts with
every seed, and with ``--out FILE`` writes it as JSON.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from ubr_pretrain.config import CommandParser, refuse
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.foreign_weights import read_foreign_weights
from ubr_pretrain.network_input import network_input, resample_slices
from ubr_pretrain.slice_classes import BODY_PARTS, read_slice_classes
from ubr_pretrain.volumes import read_volume

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def read_slices(folder: Path, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Return the labelled slices of a folder as the trunk sees them, and their classes."""
    inputs, classes = [], []
    for name, rows in read_slice_classes([folder / "slice_classes.csv"]).groupby("volume"):
        volume = read_volume(folder / f"{name}.nii.gz")
        hu = resample_slices(volume.hu, volume.spacing_mm_zyx[1:], spec)[rows["index_sup_to_inf"]]
        inputs.append(network_input(torch.from_numpy(hu).float(), spec))
        classes += [BODY_PARTS.index(part) for part in rows["class"]]
    return torch.cat(inputs), torch.tensor(classes)


def build_vgg16(trunk: dict[str, Tensor], start: str) -> VGG:
    """Return torchvision's VGG-16, as wide as the trunk, with a new last layer."""
    width = len(trunk["features.0.weight"]) / 64
    channels = [c if c == "M" else max(8, round(c * width)) for c in cfgs["D"]]
    net = VGG(make_layers(channels))
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Linear(channels[-2], len(BODY_PARTS))
    if start == "ubr":
        net.features.load_state_dict({k.removeprefix("features."): v for k, v in trunk.items()})
    return net


def main(argv: Sequence[str] | None = None) -> int:
    """Train from both starts with every seed, on the same slices in the same order."""
    parser = CommandParser(prog="classify_slices.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("weights", type=Path, help="of export_backbone.py --layout torchvision")
    parser.add_argument("--train", type=Path, required=True, help="folder to learn from")
    parser.add_argument("--test", type=Path, required=True, help="folder to judge on, others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the training")
    parser.add_argument("--iterations", type=int, default=60, help="of 16 slices")
    parser.add_argument("--out", type=Path, help="JSON file of the accuracies")
    options = parser.parse_args(argv)
    try:
        trunk, about = read_foreign_weights(options.weights)
        spec = InputSpec.model_validate_json(about.get("input_spec", ""))
        (x, y), (test_x, test_y) = (read_slices(f, spec) for f in (options.train, options.test))
    except (ValueError, OSError) as error:
        refuse(parser.prog, str(error))
    commonest = float((test_y == y.mode().values).float().mean())
    print(f"{len(y)} slices to learn from, {len(test_y)} to judge, commonest class {commonest:.3f}")
    accuracy: dict[str, list[float]] = {"random": [], "ubr": []}
    for seed in options.seeds:
        for start, reached in accuracy.items():
            torch.manual_seed(seed)
            net = build_vgg16(trunk, start).to(DEVICE)
            rng = np.random.default_rng(seed)  # of the slices alone: equal for both starts
            optimiser = torch.optim.AdamW(net.parameters(), lr=0.0003)
            for _ in range(options.iterations):
                batch = rng.integers(len(y), size=16)
                logits = net(x[batch].to(DEVICE))
                loss = nn.functional.cross_entropy(logits, y[batch].to(DEVICE))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.no_grad():
                parts = [net(part.to(DEVICE)).argmax(1).cpu() for part in test_x.split(64)]
            reached.append(float((torch.cat(parts) == test_y).float().mean()))
            print(f"seed {seed}  {start:6s}  accuracy {reached[-1]:.3f}", flush=True)
    for start, reached in accuracy.items():
        print(f"{start:6s}  mean of {len(reached)} seeds {np.mean(reached):.3f}")
    if options.out:
        options.out.write_text(json.dumps({"num_test": len(test_y), "accuracy": accuracy}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
