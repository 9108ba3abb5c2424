"""Convert a trained detector between this project (torchvision) and Detectron2, without loss.

Commands:
    convert_detector.py runs/ubr/checkpoints/best.safetensors detectron2/
    convert_detector.py detectron2/model.pth best.safetensors
    convert_detector.py output/model_final.pth mine.safetensors --config output/config.yaml
    convert_detector.py best.safetensors detectron2/ --coco val.json --images Images_png/

The first writes ``model.pth`` and ``config.yaml``, which a plain Detectron2 script reads after
``import lesion_det.detector_d2``; the others a checkpoint for ``evaluate_det.py``. They appear once
they were read back bit for bit and, where Detectron2 is installed, both engines found the same on
the same inputs (of --coco and --images, else random fields).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ubr_pretrain.config import CommandParser, give_up, refuse

if TYPE_CHECKING:
    from torch import Tensor

    from lesion_det.engine_parity import EngineParity

PROG = "convert_detector.py"
RANDOM_IMAGES, RANDOM_PX = 4, 192
"""Inputs of the comparison where none are named."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and convert; return the exit code."""
    parser = CommandParser(
        prog=PROG, description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("source", type=Path, help=".safetensors of train_det.py, or .pth of Detectron2")
    add("out", type=Path, help="folder for Detectron2, or a .safetensors file")
    add("--config", type=Path | None, help="of a .pth; default: config.yaml beside it")
    add("--coco", type=Path | None, help="compare the engines on the images of this COCO file")
    add("--images", type=Path | None, help="Images_png, with --coco")
    add("--max_images", type=int, default=32, help="images of --coco that are compared at most")
    add("--overwrite", action="store_true", help="replace files that are there")
    a = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if (a.coco is None) != (a.images is None):
        refuse(PROG, "--coco and --images go together")
    if a.max_images < 1:
        refuse(PROG, f"--max_images {a.max_images}: expected 1 or more")
    to_detectron2 = a.source.suffix != ".pth"
    if to_detectron2 and a.config is not None:
        refuse(PROG, "--config goes with a .pth of Detectron2")
    if a.out.suffix != ("" if to_detectron2 else ".safetensors"):
        wanted = "a folder, a name without a suffix" if to_detectron2 else "a .safetensors file"
        refuse(PROG, f"{a.out}: what becomes of {a.source.name} is {wanted}")
    inputs = ComparedOn(a.coco, a.images, a.max_images)
    try:
        if to_detectron2:
            parity = convert_to_detectron2(a.source, a.out, inputs, overwrite=a.overwrite)
        else:
            config = a.config or a.source.with_name("config.yaml")
            parity = convert_from_detectron2(a.source, config, a.out, inputs, overwrite=a.overwrite)
    except (ValueError, OSError) as error:
        give_up(PROG, error)
    if parity is None:
        from lesion_det.engine import INSTALL

        print(f"every tensor read back bit-equal; Detectron2 is not here to compare ({INSTALL})")
    else:
        print(f"every tensor read back bit-equal; {parity.words}")
    if to_detectron2:
        print(f"wrote {a.out / 'model.pth'} and {a.out / 'config.yaml'}")
    else:
        print(f"wrote {a.out}")
        print(f"next: evaluate_det.py --checkpoint {a.out} --coco COCO --images PNGS --out OUT")
    return 0


@dataclass(frozen=True)
class ComparedOn:
    """What both engines detect on before a converted file appears.

    Attributes:
        coco: a split; None: random fields.
        images: the folder ``Images_png`` of it.
        max_images: at most so many of the split.
    """

    coco: Path | None = None
    images: Path | None = None
    max_images: int = 32


def convert_to_detectron2(
    source: Path, out: Path, inputs: ComparedOn, *, overwrite: bool = False
) -> EngineParity | None:
    """Write the detector of a checkpoint as ``model.pth`` and ``config.yaml`` below ``out``.

    Args:
        source: of ``train_det.py``.
        out: folder.
        inputs: what both engines detect on.
        overwrite: replace files that are there.

    Returns:
        How the engines' detections compare; None where Detectron2 is not installed.

    Raises:
        FileExistsError: a file is there and ``overwrite`` is False.
        ValueError: ``source`` is refused, what was written is not what was read, or the engines do
            not find the same. No file has appeared then.
    """
    from lesion_det.detectron2_files import (
        CONFIG,
        MODEL,
        description_of,
        read_detectron2,
        write_detectron2,
    )
    from ubr_pretrain.checkpoint import read_checkpoint

    _require_free((out / MODEL, out / CONFIG), overwrite)
    state = read_checkpoint(source, "detector")
    with TemporaryDirectory() as draft:
        files = write_detectron2(Path(draft), state)
        again = read_detectron2(*files)
        _require_equal(state["detector"], again["detector"], source)
        for name, value in description_of(state).items():
            if again[name] != value:
                raise ValueError(f"{source}: {name} was not read back as it was written")
        parity = compare_files(source, *files, inputs)
        for file in files:
            _publish(file, out / file.name)
    return parity


def convert_from_detectron2(
    model: Path, config: Path, out: Path, inputs: ComparedOn, *, overwrite: bool = False
) -> EngineParity | None:
    """Write a detector that Detectron2 keeps as a checkpoint of ours.

    Args:
        model: ``.pth``.
        config: its configuration, complete.
        out: ``.safetensors``.
        inputs: what both engines detect on.
        overwrite: replace a file that is there.

    Returns:
        How the engines' detections compare; None where Detectron2 is not installed.

    Raises:
        FileExistsError: ``out`` is there and ``overwrite`` is False.
        ValueError: a file is refused, what was written is not what was read, or the engines do not
            find the same. No file has appeared then.
    """
    from lesion_det.detectron2_files import read_detectron2
    from lesion_det.inference import read_detector
    from ubr_pretrain.checkpoint import write_checkpoint

    _require_free((out,), overwrite)
    state = read_detectron2(model, config)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / out.name
        write_checkpoint(draft, state, "detector")
        again = read_detector(draft, "torchvision").detector.state_dict()
        _require_equal(state["detector"], again, model)
        parity = compare_files(draft, model, config, inputs)
        _publish(draft, out)
    return parity


def compare_files(
    checkpoint: Path, model: Path, config: Path, inputs: ComparedOn
) -> EngineParity | None:
    """Detect with both engines on the same inputs; None where Detectron2 is not installed.

    Raises:
        ValueError: the engines do not find the same, Detectron2 does not load every tensor, or a
            slice cannot be read.
    """
    from lesion_det.engine import has_detectron2, require_detectron2

    if not has_detectron2():
        return None
    require_detectron2()
    import torch

    from lesion_det.engine_parity import engine_parity, plain_detectron2, random_images
    from lesion_det.ground_truth import read_ground_truth
    from lesion_det.inference import read_detector
    from lesion_det.slices import prepare_image

    trained = read_detector(checkpoint, "torchvision")
    if inputs.coco is None or inputs.images is None:
        seen = random_images(RANDOM_IMAGES, RANDOM_PX)
    else:
        records = read_ground_truth(inputs.coco).images[: inputs.max_images]
        prepared = [prepare_image(inputs.images, record, trained.input) for record in records]
        seen = [torch.from_numpy(image.hu) for image in prepared]
    parity = engine_parity(trained.detector, seen, plain_detectron2(model, config))
    if not parity.is_equal:
        raise ValueError(f"{model}: the two engines do not find the same: {parity.words}")
    return parity


def _publish(draft: Path, final: Path) -> None:
    from ubr_pretrain.whole_file import write_atomically

    with write_atomically(final) as file:
        file.write(draft.read_bytes())


def _require_free(files: Sequence[Path], overwrite: bool) -> None:
    if not overwrite and (taken := [file for file in files if file.exists()]):
        raise FileExistsError(f"{taken[0]}: exists; use --overwrite or another name")


def _require_equal(read: Mapping[str, Tensor], again: Mapping[str, Tensor], out: Path) -> None:
    if read.keys() != again.keys():
        raise ValueError(f"{out}: {sorted(read.keys() ^ again.keys())[0]} is lost or new")
    for name, tensor in read.items():
        if not tensor.equal(again[name]):
            raise ValueError(f"{out}: {name} was not read back as it was written")


if __name__ == "__main__":
    raise SystemExit(main())
