"""The two trainings: their commands, and what is done to the files that they leave."""

from pathlib import Path

from lesion_det.train_det import main as train_det
from ubr_pretrain.config import Config, config_to_yaml
from ubr_pretrain.train_ubr import main as train_ubr

TRAIN = {"ubr": train_ubr, "detector": train_det}


def ask(config: Config, out: Path) -> list[str]:
    """Return the command line of a training."""
    file = out.parent / f"{out.name}.yaml"
    file.write_text(config_to_yaml(config))
    return [f"--config={file}", f"--out={out}"]


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")
