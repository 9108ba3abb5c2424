"""The script for a GPU runs on a CPU, every row of it, with no more than a bare machine has."""

import importlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"

WITHOUT = """
import runpy, sys

sys.modules.update(dict.fromkeys({missing!r}))  # None: there is no such module
sys.path.insert(0, {folder!r})
sys.argv = [{script!r}, *sys.argv[1:]]
runpy.run_path({script!r}, run_name="__main__")
"""

MISSING = (
    *("SimpleITK", "pycocotools", "faster_coco_eval", "pylibjpeg", "isal", "sklearn", "pyarrow"),
    *("ray", "submitit", "openvino", "onnxruntime", "detectron2", "highdicom", "nibabel"),
)


def run(out: Path) -> subprocess.CompletedProcess:
    code = WITHOUT.format(missing=MISSING, folder=str(SCRIPT.parent), script=str(SCRIPT))
    return subprocess.run(
        [sys.executable, "-c", code, "--device", "cpu", "--tiny", "--out", str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_every_row_is_run_predicted_and_measured(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert record["failed"] == {}
    for row in record["rows"]:
        assert row["measured"] > 0
        assert row["predicted"] > 0
        assert row["reason"]
    what = "\n".join(row["what"] for row in record["rows"])
    for part in ("bare UBR step, bf16, channels last, compiled", "UBR step, data included, tf32"):
        assert part in what
    for part in ("the paper's", "scoring a volume", "detector step", "peak memory", "a slice of"):
        assert part in what
    for precision in ("fp32", "tf32", "bf16"):
        assert sum(f"64 px, {precision}" in row["what"] for row in record["rows"]) == 2
    table = (tmp_path / "gpu.md").read_text()
    for row in record["rows"]:
        assert f"| {row['what']} |" in table
        assert f"| {row['what']} |" in done.stdout  # as it came
    # Tiny sizes measure nothing: that is said first, and nothing is judged or compared.
    for text in (table, done.stdout):
        assert text.startswith("Sizes are tiny: ")
        assert "figures mean nothing" in text.splitlines()[0]
        for word in ("| met |", "| missed |", "Titan X", "the aim"):
            assert word not in text
    assert all(row["bound"] is None and row["at_most"] is None for row in record["rows"])


def test_group_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    gpu, rows = importlib.import_module("gpu"), importlib.import_module("gpu_rows")
    row = importlib.import_module("gpu_chip").GpuRow
    good = row("a row", "ms", 1.0, 2.0, "because", "the first", 2.0, 1.1)
    worse = row("another row", "ms", 1.0, 4.0, "because", "the first", 2.0, 1.1)

    def killed(*_: object) -> Iterator[object]:
        yield good
        os.kill(os.getpid(), signal.SIGKILL)

    def raises(*_: object) -> Iterator[object]:
        raise RuntimeError("out of\n memory")
        yield

    groups = {"killed": killed, "raises": raises, "good": lambda *_: iter([good, worse])}
    monkeypatch.setattr(gpu, "GROUPS", groups)
    sizes, lines = gpu.Sizes(device="cpu"), tmp_path / "rows"
    failed = {name: gpu.run_group(name, sizes, make(tmp_path / name), lines) for name in groups}
    assert failed == {"killed": "exit code -9", "raises": "RuntimeError: out of memory", "good": ""}
    assert len((tmp_path / "rows").read_text().splitlines()) == 3
    gpu.write(tmp_path, lines, failed, sizes)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["bound"] for row in record["rows"]] == [None, None, 2.0]  # not with itself
    assert record["failed"] == failed
    assert record["machine"]["device"] == "cpu"
    assert rows.GROUPS.keys() == {"ubr", "paper", "scoring", "detector", "memory", "growth"}


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_wheels_are_importable_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    gpu = importlib.import_module("gpu")
    with zipfile.ZipFile(make(tmp_path / "wheels") / "toy-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_in_a_wheel/__init__.py", "VALUE = 7")
    gpu.make_importable(tmp_path / "wheels", tmp_path / "site")
    assert importlib.import_module("toy_in_a_wheel").VALUE == 7


def test_row_says_its_ratios_and_whether_the_aim_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    chip = importlib.import_module("gpu_chip")
    row = chip.GpuRow("a step", "ms", 5.0, 10.0, "half the peak", "bare", 8.0, 1.11)
    assert row.to_markdown() == (
        "| a step | 5 | 10 ms | 2.00 | half the peak | bare | 8 | 1.250 | <= 1.11 | missed |"
    )
    assert row.to_markdown().count("|") == chip.HEAD.splitlines()[0].count("|")


def test_cost_of_a_convolution_is_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    chip = importlib.import_module("gpu_chip")
    network = torch.nn.Conv2d(3, 8, 3, padding=1)
    flops, numbers = chip.cost_of_forward(network, (2, 3, 16, 16))
    assert flops == 2 * (2 * 16 * 16) * 8 * (3 * 3 * 3)
    assert numbers == 2 * 8 * 16 * 16
