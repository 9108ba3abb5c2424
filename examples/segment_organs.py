"""Does a body-part regressor's trunk help to segment organs? U-Nets from three starts, few labels.

    python examples/segment_organs.py --ct organs/ct --labels organs/labels --encoder vgg16.safetensors --out runs/segment

The U-Net is that of segmentation_models_pytorch, its encoder VGG-16 as wide as the trunk in the
file. Every start meets the same patients, slices, order and decoder; only the encoder differs:

    random     as torchvision initialises VGG-16
    shuffled   the trunk's weights, in every tensor in random order: their scale, nothing learned
    ubr        the trunk

Writes ``results.json`` (anew after every training), ``dice.csv``, ``curve.png``, ``slices.png``.

Shapes:
    z: axial slices, superior -> inferior; S: pixels of a side; k: organs; 0 is what is none.
"""  # noqa: E501  (a command is one line)

import copy
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from labelled_scans import ExportedTrunk, Labels, Patient, read_organs, read_patient, read_trunk
from numpy.typing import NDArray
from organ_figures import draw_curves, draw_slices, summarise
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from ubr_pretrain.config import CommandParser, refuse
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.machine import describe_machine
from ubr_pretrain.network_input import network_input
from ubr_pretrain.runtime import generator, to_json
from ubr_pretrain.trunk import scaled_channels
from ubr_pretrain.whole_file import write_atomically

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
STARTS = ("random", "shuffled", "ubr")
ORGANS = ("liver=13,14", "spleen=16", "kidneys=18,19", "lungs=6,42")
"""Numbers in the label files that make up an organ; the default is that of ``make_phantoms.py``."""

SPARSE = slice(None, None, 4)
"""Slices on which the curve is measured; Dice in the end is that of all."""


def build_unet(trunk: ExportedTrunk, start: str, num_organs: int, seed: int) -> nn.Module:
    """Return a U-Net whose encoder is as wide as the trunk, and begins as ``start`` says.

    The weights of the library are not asked for, and its ImageNet normalisation is not applied:
    what goes in is what ``network_input`` makes.
    """
    stock = encoders["vgg16"]
    width = trunk.width
    name = "vgg16" if width == 1 else f"vgg16-{width:g}"  # "vgg...": smp adds its centre block
    if name not in encoders:
        encoders[name] = narrow = copy.deepcopy(stock)
        for key in ("out_channels", "config"):
            values = stock["params"][key]
            narrow["params"][key] = [v if v == "M" else scaled_channels(v, width) for v in values]
    torch.manual_seed(seed)
    net = smp.Unet(
        name,
        encoder_weights=None,
        classes=1 + num_organs,
        decoder_channels=[max(16, round(c * width)) for c in (256, 128, 64, 32, 16)],
    )
    if start == "ubr":
        net.encoder.features.load_state_dict(trunk.tensors)  # strict: every tensor, or an error
    elif start == "shuffled":
        tensors = {name: _shuffled(tensor) for name, tensor in sorted(trunk.tensors.items())}
        net.encoder.features.load_state_dict(tensors)
    return net.to(DEVICE)


def _shuffled(tensor: Tensor) -> Tensor:
    return tensor.flatten()[torch.randperm(tensor.numel())].view_as(tensor)


def train(
    net: nn.Module, patients: Sequence[Patient], spec: InputSpec, options: Namespace, seed: int
) -> Iterator[int]:
    """Train on random slices, yielding the number of iterations done after each one."""
    rng = generator(seed)  # of the data alone: equal for all starts
    optimiser = torch.optim.AdamW(net.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.iterations)
    overlap = smp.losses.DiceLoss("multiclass")
    hu = np.concatenate([patient.hu for patient in patients])
    organs = np.concatenate([patient.organs for patient in patients])
    for iteration in range(1, options.iterations + 1):
        net.train()
        chosen = rng.integers(len(hu), size=options.batch)
        truth = torch.from_numpy(organs[chosen]).long().to(DEVICE)
        logits = net(to_input(hu[chosen], spec))
        loss = nn.functional.cross_entropy(logits, truth) + overlap(logits, truth)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        yield iteration


def to_input(hu: NDArray[np.int16], spec: InputSpec) -> Tensor:
    """Return slices as the trunk was trained to see them."""
    return network_input(torch.from_numpy(hu).float().to(DEVICE), spec)


@torch.no_grad()
def segment(net: nn.Module, hu: NDArray[np.int16], spec: InputSpec) -> Labels:
    """Return the organ of every pixel [z, S, S]."""
    net.eval()
    parts = [net(to_input(part, spec)).argmax(1) for part in np.array_split(hu, len(hu) // 16 + 1)]
    return torch.cat(parts).to(torch.uint8).cpu().numpy()


def dice(found: Labels, truth: Labels, num_organs: int) -> list[float | None]:
    """Return 2 |found & truth| / (|found| + |truth|) of every organ in one patient.

    None where the patient has none of the organ and none was found.
    """
    scores: list[float | None] = []
    for organ in range(1, num_organs + 1):
        ours, theirs = found == organ, truth == organ
        size = int(ours.sum()) + int(theirs.sum())
        scores.append(2 * int((ours & theirs).sum()) / size if size else None)
    return scores


def judge(
    found: Sequence[Labels], truth: Sequence[Labels], num_organs: int
) -> list[list[float | None]]:
    """Return the Dice of every organ in every patient."""
    return [dice(f, t, num_organs) for f, t in zip(found, truth, strict=True)]


def mean_dice(scores: Sequence[Sequence[float | None]]) -> float:
    """Return the mean over organs of the mean over the patients who have them."""
    return float(np.nanmean(np.nanmean(np.array(scores, float), axis=0)))


def run(options: Namespace, say: Callable[[str], None] = print) -> None:
    """Train every start on every number of patients with every seed, and write what came out.

    Raises:
        ValueError: wrong files, or too few patients.
        OSError: something cannot be read or written.
    """
    trunk = read_trunk(options.encoder)
    spec = trunk.input_spec
    spec = spec.model_copy(update={"size_px": options.size_px or spec.size_px})
    organs = read_organs(options.organs)
    files = sorted(options.ct.glob("*.nii.gz"))
    if min(options.test, *options.patients) < 1:
        raise ValueError(f"--test {options.test} and --patients {options.patients} must be > 0")
    if len(files) < options.test + max(options.patients):
        raise ValueError(
            f"{options.ct}: {len(files)} patients, --test {options.test} and --patients "
            f"{max(options.patients)} need {options.test + max(options.patients)}"
        )
    patients = [read_patient(file, options.labels, organs, spec) for file in files]
    pool, held_out = patients[: -options.test], patients[-options.test :]
    say(f"{len(pool)} patients to learn from, {len(held_out)} held out, {spec.size_px} px")
    options.out.mkdir(parents=True, exist_ok=True)

    jobs = [(n, seed, s) for n in options.patients for seed in options.seeds for s in STARTS]
    began_s = time.monotonic()
    line = ProgressLine(len(jobs) * options.iterations)
    pictures: dict[str, list[Labels]] = {}
    trainings = []
    for number, (num_patients, seed, start) in enumerate(jobs):
        # The same seed draws the same patients for all starts.
        drawn = generator(seed).permutation(len(pool))[:num_patients]
        net = build_unet(trunk, start, len(organs), seed)
        curve = []
        for iteration in train(net, [pool[i] for i in drawn], spec, options, seed):
            line.show(number * options.iterations + iteration, f"{start}, {num_patients} patients")
            # Every so often: judge some slices of the patients held out.
            if iteration % options.eval_every == 0 or iteration == options.iterations:
                some = [segment(net, p.hu[SPARSE], spec) for p in held_out]
                scores = judge(some, [p.organs[SPARSE] for p in held_out], len(organs))
                curve.append({"iteration": iteration, "dice": mean_dice(scores)})
        found = [segment(net, p.hu, spec) for p in held_out]
        scores = judge(found, [p.organs for p in held_out], len(organs))
        if num_patients == options.patients[0] and seed == options.seeds[0]:
            pictures[start] = found
        trainings.append(
            {
                "start": start,
                "num_patients": num_patients,
                "seed": seed,
                "trained_on": [pool[i].name for i in drawn],
                "curve": curve,
                "dice": {p.name: s for p, s in zip(held_out, scores, strict=True)},
            }
        )
        # Every training: write what is known so far.
        results = {"organs": list(organs), "input_spec": spec.model_dump(mode="json"),
                   "machine": describe_machine(DEVICE) | {"smp": smp.__version__},
                   "options": vars(options), "seconds": round(time.monotonic() - began_s),
                   "trainings": trainings}  # fmt: skip
        with write_atomically(options.out / "results.json", "w") as file:
            file.write(to_json(results, indent=1) + "\n")
    line.close()
    table = summarise(json.loads((options.out / "results.json").read_text()))
    table.to_csv(options.out / "dice.csv", index=False, lineterminator="\n")
    say(table.to_string(index=False))
    draw_curves(trainings, options.out / "curve.png")
    draw_slices(held_out, pictures, spec, list(organs), options.out / "slices.png")
    say(f"wrote {options.out}: results.json, dice.csv, curve.png, slices.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, train, judge, draw; return the exit code."""
    parser = CommandParser(prog="segment_organs.py", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--ct", type=Path, required=True, help="folder of scans, *.nii.gz")
    add("--labels", type=Path, required=True, help="folder of label files of the same names")
    add("--encoder", type=Path, required=True, help="a trunk of export_backbone.py")
    add("--out", type=Path, required=True, help="folder to write to")
    add("--organs", nargs="+", default=list(ORGANS), help="NAME=NUMBER,NUMBER in the label files")
    add("--patients", type=int, nargs="+", default=[2], help="how many labelled ones")
    add("--test", type=int, default=12, help="how many are held out: the last by name")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of patients, slices and decoder")
    add("--size-px", type=int, help="side of a slice; that of the trunk's training")
    add("--iterations", type=int, default=240, help="of a training")
    add("--eval-every", type=int, default=30, help="iterations between points of the curve")
    add("--batch", type=int, default=8, help="slices in an iteration")
    add("--lr", type=float, default=0.003, help="learning rate of AdamW, cosine to zero")
    options = parser.parse_args(argv)
    try:
        run(Namespace(**vars(options)))
    except (ValueError, OSError) as error:
        refuse(parser.prog, str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
