"""Every row that needs a GPU, each with what was predicted before it was measured.

    python benchmarks/gpu.py --out gpu/                        # on the machine with the GPU
    python benchmarks/gpu.py --wheels wheels/ --out gpu/       # where packages are missing
    python benchmarks/gpu.py --device cpu --tiny --out gpu/    # runs every line, measures nothing

It needs torch >= 2.11, torchvision, numpy, OpenCV, pandas, scipy, matplotlib, tensorboard, rich,
PyYAML, safetensors and jaxtyping, and no network. ``--wheels`` is a folder of wheels that are
unpacked for the run; on a bare CUDA machine: pydantic, pydantic-core (for its Python), annotated-
types, typing-inspection, jsonargparse, docstring-parser, pydicom. The project itself is taken from
beside this script, installed or not. Detectron2 is a peer where it can be imported.

Every group of rows is a process of its own: one that fails is named, the others go on, and the exit
code is 1. Rows are printed as they come; ``gpu.md`` and ``gpu.json`` are written after every group.

A prediction is floating-point operations over the published peak at ``EFFICIENCY``, plus bytes of
activations over the published bandwidth; what is ours is predicted at the bound that it aims at.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gpu_chip import HEAD, GpuRow
from gpu_rows import GROUPS
from gpu_sizes import TINY, Sizes

ROOT = Path(__file__).resolve().parents[1]

ABOUT = "about.json"
"""Written by a child: a parent that has touched a GPU cannot be forked."""

LIMIT_S, ALL_S = 240.0, 560.0
"""Of one group, and of all; what is not reached by then is named as failed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 1 where a group of rows failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cuda", help="cuda, cuda:1, cpu")
    add("--tiny", action="store_true", help="sizes that run every line in seconds")
    add("--wheels", type=Path, help="folder of wheels, unpacked for the run")
    add("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="groups of rows")
    add("--out", type=Path, required=True, help="folder for gpu.md and gpu.json")
    arguments = parser.parse_args(argv)
    sizes = replace(Sizes(device=arguments.device), **(TINY if arguments.tiny else {}))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        make_importable(arguments.wheels, Path(name) / "site")
        for module in ("detector", "ubr_pretrain.figures", "ubr_pretrain.scorer"):
            importlib.import_module(module)  # once, before the groups are forked

        print(heading(sizes), flush=True)
        failed: dict[str, str] = {}
        results, ends_s = Path(name) / "rows.jsonl", time.monotonic() + ALL_S
        for group in arguments.only:
            folder = Path(name) / group
            folder.mkdir()
            began_s = time.monotonic()
            if reason := run_group(group, sizes, folder, results, min(LIMIT_S, ends_s - began_s)):
                failed[group] = reason
                print(f"| {group}: FAILED: {reason} |", flush=True)
            print(f"{group}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)
            write(arguments.out, results, failed, sizes)
    return 1 if failed else 0


def heading(sizes: Sizes) -> str:
    """Return what stands above the rows, on the page as in print."""
    return f"{sizes.warning}\n\n{HEAD}" if sizes.warning else HEAD


def write(out: Path, results: Path, failed: dict[str, str], sizes: Sizes) -> None:
    """Write ``gpu.md`` and ``gpu.json`` of what there is so far."""
    lines = results.read_text("utf-8").splitlines() if results.is_file() else []
    rows = [GpuRow(**json.loads(line)) for line in lines]
    reasons = [f"{group}: failed: {reason}" for group, reason in failed.items()]
    text = "\n".join([heading(sizes), *(row.to_markdown() for row in rows), "", *reasons])
    (out / "gpu.md").write_text(text + "\n", encoding="utf-8")
    said = results.with_name(ABOUT)
    machine = json.loads(said.read_text("utf-8")) if said.is_file() else {}
    record = {
        "warning": sizes.warning,
        "rows": [asdict(row) for row in rows],
        "failed": failed,
        **machine,
    }
    (out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run_group(
    group: str, sizes: Sizes, folder: Path, results: Path, limit_s: float = LIMIT_S
) -> str:
    """Measure a group in a process of its own; return why it failed, "" where it did not."""
    child = multiprocessing.get_context("fork").Process(
        target=_measure, args=(group, sizes, folder, results)
    )
    child.start()
    child.join(max(0.0, limit_s))
    if child.is_alive():
        child.kill()
        child.join()
        return f"not done after {limit_s:.0f} s"
    said = folder / "reason"
    if child.exitcode:
        return said.read_text("utf-8") if said.is_file() else f"exit code {child.exitcode}"
    return ""


def _measure(group: str, sizes: Sizes, folder: Path, results: Path) -> None:
    try:
        results.with_name(ABOUT).write_text(json.dumps(about(sizes.device)), encoding="utf-8")
        shown: GpuRow | None = None
        for found in GROUPS[group](sizes, folder):
            itself = found.bound == found.measured  # the first of a series
            row = found.alone if sizes.tiny or itself else found
            if row == shown:  # it differed in what it was compared with
                continue
            shown = row
            print(row.to_markdown(), flush=True)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    except BaseException as error:
        traceback.print_exc()
        words = " ".join(str(error).split())[:300]
        (folder / "reason").write_text(f"{type(error).__name__}: {words}", encoding="utf-8")
        raise SystemExit(1) from error


def make_importable(wheels: Path | None, site: Path) -> None:
    """Put the project, and what the wheels hold, where Python looks; nothing is installed.

    Args:
        wheels: a folder of ``*.whl``; None: nothing is missing.
        site: a folder to unpack them into.
    """
    site.mkdir()
    for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    described = site / "ct_body_part_transfer-0.dist-info"
    if not [*site.glob("ct_body_part_transfer-*.dist-info")]:  # weights say which version made them
        described.mkdir()
        text = "Metadata-Version: 2.1\nName: ct-body-part-transfer\nVersion: 0\n"
        (described / "METADATA").write_text(text, encoding="utf-8")
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(site)]


def about(device: str) -> dict[str, Any]:
    """Return versions, chip and date."""
    import torch

    from ubr_pretrain.machine import describe_machine

    machine = describe_machine(torch.device(device))
    return {"machine": machine, "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}


if __name__ == "__main__":
    raise SystemExit(main())
