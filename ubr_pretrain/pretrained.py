"""The scorer that ships in the package: half-precision weights and their calibration.

Commands:
    python -m ubr_pretrain.pretrained runs/ubr/checkpoints/best.safetensors \
        --calibration calibration.json

It writes ``scorer.safetensors`` (an ordinary checkpoint of a regressor, its batch norms folded, in
fp16, at most 4 MB) and ``calibration.json`` into ``ubr_pretrain/weights/``, where ``score_volumes``
and ``score_volume`` find them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ubr_pretrain.config import CommandParser, refuse

if TYPE_CHECKING:
    from ubr_pretrain.calibration import Calibration
    from ubr_pretrain.regressor import TrainedRegressor

WEIGHTS_FOLDER = Path(__file__).resolve().parent / "weights"
SCORER, CALIBRATION = "scorer.safetensors", "calibration.json"
NUM_VIEWS = 3
"""Views of a slice that are averaged unless told otherwise: measured as good as seven, see the lab
book."""

MAX_BYTES = 4_000_000
"""What a package may carry without anybody minding."""


@dataclass(frozen=True)
class Pretrained:
    """A trained regressor and the calibration that gives its scores a meaning."""

    trained: TrainedRegressor
    calibration: Calibration


def read_pretrained(folder: Path = WEIGHTS_FOLDER) -> Pretrained:
    """Read the scorer of the package.

    Raises:
        CheckpointRefused: the weights are damaged.
        ValueError: the calibration is damaged, or not the one that was written with the weights.
    """
    from ubr_pretrain.calibration import read_calibration
    from ubr_pretrain.checkpoint import file_sha256, read_checkpoint
    from ubr_pretrain.regressor import read_regressor

    trained = read_regressor(folder / SCORER)
    calibration = read_calibration(folder / CALIBRATION)
    stated = read_checkpoint(folder / SCORER, "ubr").get("calibration_sha256")
    if stated != file_sha256(folder / CALIBRATION):
        raise ValueError(
            f"{folder / CALIBRATION}: is not the calibration that {SCORER} was written with; "
            "write both with python -m ubr_pretrain.pretrained"
        )
    return Pretrained(trained, calibration)


def write_pretrained(
    trained: TrainedRegressor, calibration: Calibration, folder: Path = WEIGHTS_FOLDER
) -> Path:
    """Write the scorer of the package; return its weight file.

    Raises:
        ValueError: the file would exceed ``MAX_BYTES``, or a weight does not fit fp16.
    """
    from ubr_pretrain.calibration import write_calibration
    from ubr_pretrain.checkpoint import file_sha256, write_checkpoint

    state = half_precision_state(trained)
    num_bytes = sum(2 * tensor.numel() for tensor in state["regressor"].values())
    if num_bytes > MAX_BYTES:
        raise ValueError(f"{num_bytes} bytes of weights, limit {MAX_BYTES}: use a narrower trunk")
    write_calibration(calibration, folder / CALIBRATION)
    bond = {"calibration_sha256": file_sha256(folder / CALIBRATION)}
    write_checkpoint(folder / SCORER, state | bond, "ubr")
    return folder / SCORER


def half_precision_state(trained: TrainedRegressor) -> dict[str, Any]:
    """Return the state of a checkpoint: batch norms folded first, in float64, then fp16.

    Raises:
        ValueError: a weight is beyond the range of fp16.
    """
    import torch

    from ubr_pretrain.regressor import Regressor, regressor_backbone, regressor_state

    backbone = regressor_backbone(trained)
    folded = Regressor(backbone.trunk)
    folded.conv6.load_state_dict(trained.regressor.conv6.state_dict())
    folded.fc7.load_state_dict(trained.regressor.fc7.state_dict())
    state = regressor_state(folded, backbone.input_spec, backbone.provenance.anonymous)
    half = {name: tensor.half() for name, tensor in state["regressor"].items()}
    for name, tensor in half.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: holds values beyond the range of fp16")
    return state | {"regressor": half}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and write the scorer of the package; return the exit code."""
    parser = CommandParser(
        prog="python -m ubr_pretrain.pretrained",
        description=(__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, help="of train_ubr.py")
    parser.add_argument(
        "--calibration", type=Path, required=True, help="of calibrate_scorer.py, same checkpoint"
    )
    parser.add_argument("--folder", type=Path, default=WEIGHTS_FOLDER, help="where they go")
    a = parser.parse_args(argv)

    from ubr_pretrain.calibration import read_calibration
    from ubr_pretrain.checkpoint import file_sha256
    from ubr_pretrain.regressor import read_regressor

    try:
        trained, calibration = read_regressor(a.checkpoint), read_calibration(a.calibration)
        file = write_pretrained(trained, calibration, a.folder)
    except (OSError, ValueError) as error:
        refuse(parser.prog, str(error))
    made = trained.provenance
    print(f"{file.name}: {file.stat().st_size} bytes, SHA-256 {file_sha256(file)}")
    print(f"{made.iterations} iterations on {made.num_volumes} volumes, width", end=" ")
    print(f"{trained.regressor.trunk.width:g}, {trained.input_spec.size_px} px")
    return 0


if __name__ == "__main__":
    sys.exit(main())
