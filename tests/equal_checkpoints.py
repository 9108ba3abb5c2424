"""Two checkpoints that hold the same bits; their files may hold them in another order."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file


def assert_equal_checkpoints(one: Path, other: Path, name: str, kind: str) -> None:
    """Compare ``checkpoints/NAME.safetensors`` of two runs: every tensor and every number."""
    files = [run / "checkpoints" / f"{name}.safetensors" for run in (one, other)]
    metadata = []
    for file in files:
        with safe_open(file, framework="pt") as opened:
            metadata.append(opened.metadata())
    assert metadata[0] == metadata[1], name
    assert metadata[0]["kind"] == kind
    left, right = map(load_file, files)
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        assert tensor.numpy().tobytes() == right[key].numpy().tobytes(), (name, key)
