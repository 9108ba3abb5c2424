"""Train the lesion detector from every start, over several seeds, and report what differs.

Commands:
    compare_inits.py --coco coco/ --images Images_png/ --ubr ubr.safetensors --out runs/compare
    compare_inits.py --preset laptop --coco coco/ --images Images_png/ --ubr ubr.safetensors
        --inits random ubr --seeds 0 1 --label-fractions 1 0.25 0.05 --out runs/compare
    compare_inits.py ... --external medicalnet=vgg16.pth
    compare_inits.py ... --inits random ubr@conv1 ubr@conv2 ubr@conv3 ubr@conv4 ubr
    compare_inits.py ... --dry-run
    compare_inits.py ... --slurm partition=gpu time=600 mem=32G --no-wait
    compare_inits.py ... --ray auto

Every other flag is one of ``train_det.py`` and holds for all arms. ``--ubr`` is the regressor that
was trained from scratch, ``--ubr-imagenet`` the one that started from ImageNet. An arm whose
weights are not at hand is listed as not run, with the reason. ``ubr@conv3`` is the arm ``ubr`` with
conv1 to conv3 alone transferred, the other blocks drawn as those of ``random``.

The same command continues: cells that finished are kept, those that were killed resume, failed
ones are tried again; arms, seeds and fractions may be added. It writes into ``--out``:
``cells/ARM-seedK/`` (run folders of ``train_det.py``, ``ARM-seedK.log`` beside them),
``inputs/`` (decoded once for all cells), ``report.html``, ``comparison.json``, ``table.md``,
``cells.csv``, ``recalls.csv``, ``differences.csv``, ``groups.csv``. Exit code 1: a
cell failed, or an arm that was asked for could not be run.
"""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_det.det_config import Arm, DetConfig
from ubr_pretrain.config import config_parser, parse_config, refuse

if TYPE_CHECKING:  # torch and its friends are imported once the flags are right
    from lesion_det.cells import CellKey
    from lesion_det.launch import Launch
    from lesion_det.plan import Question
    from lesion_det.ubr_chapter import UbrChapter

PAPER_ARMS: tuple[Arm, ...] = ("random", "ubr", "imagenet", "ubr+imagenet")
DEFAULT_SEEDS = (0, 1, 2, 3, 4)
"""Three can carry a verdict, but see only large differences (``power``)."""

DEFAULT_TITLE = "Lesion detection from different starts"

OF_A_CELL: Mapping[str, str] = {
    "init": "inits",
    "seed": "seeds",
    "label_fraction": "label-fractions",
    "transfer_through": "inits ARM@BLOCK",
}
"""Flags of ``train_det.py`` that every cell has its own of, and what says them for all cells."""

REPORT_EVERY_S = 300.0
"""While cells are trained, and never more than a tenth of the time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and compare; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = config_parser(
        DetConfig,
        "compare_inits.py",
        (__doc__ or "").split("\n\n", maxsplit=1)[0],
        "det",
        without={*OF_A_CELL, "external"},
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the comparison")
    arms = f"arms, or ARM@conv3 for a part of its trunk (default: {' '.join(PAPER_ARMS)})"
    add("--inits", nargs="+", help=arms)
    add("--seeds", nargs="+", type=int, default=list(DEFAULT_SEEDS), help="of every arm")
    add("--label-fractions", nargs="+", type=float, default=[1.0], help="of the training patients")
    add("--ubr-imagenet", type=Path | None, help="UBR that began from ImageNet")
    add(
        "--external",
        dest="externals",
        metavar="NAME=FILE",
        action="append",
        default=[],
        help="a further arm NAME from a VGG-16 of others; may be given several times",
    )
    add(
        "--jobs",
        default="auto",
        help="cells side by side, of a machine (default: one a GPU, or one)",
    )
    add(
        "--slurm",
        nargs="*",
        metavar="KEY=VALUE",
        help="submit every cell to SLURM; options of sbatch, time in minutes",
    )
    add("--no-wait", action="store_true", help="end once the jobs are submitted")
    add(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="train the cells on a cluster of Ray: auto, HOST:PORT, or one started here",
    )
    add("--title", default=DEFAULT_TITLE, help="of the report")
    add("--ubr-run", type=Path | None, help="run of train_ubr.py, for the report")
    add("--scores", type=Path | None, help="of score_volumes.py, for the report")
    add("--pictures", nargs="*", type=Path, default=[], help="for the report")
    add("--dry-run", action="store_true", help="check, measure a step, print the plan")
    add("--overwrite", action="store_true", help="delete the comparison there")
    for argument in arguments:
        field = argument.partition("=")[0].removeprefix("--").replace("-", "_")
        if argument.startswith("--") and field in OF_A_CELL:
            instead = OF_A_CELL[field]
            refuse(parser.prog, f"--{field}: every cell has its own; use --{instead}")
    common, rest = parse_config(parser, DetConfig, arguments, presets="det")

    from lesion_det.plan import build_question, make_plan
    from lesion_det.ubr_chapter import read_ubr_chapter
    from ubr_pretrain.run_folder import fault_words

    try:
        jobs = _read_jobs(rest)
        question = build_question(
            common,
            rest.inits or PAPER_ARMS,
            rest.seeds,
            rest.label_fractions,
            externals=rest.externals,
            ubr_imagenet=rest.ubr_imagenet,
            title=rest.title,
        )
        chapter = read_ubr_chapter(rest.ubr_run, rest.scores, rest.pictures)
        if rest.dry_run:
            from lesion_det.estimate import choose_trial, describe_plan
            from lesion_det.plan import SAVED_PLACES, not_run_lines
            from ubr_pretrain.run_folder import require_same_run

            plan = make_plan(question, print)
            _say_moves(require_same_run(rest.out, plan.question, SAVED_PLACES), print)
            on_slurm, num_cells = rest.slurm is not None, len(plan.configs)
            launcher, workers = choose_trial(common.device, jobs, num_cells, rest.ray, on_slurm)
            describe_plan(question, plan, rest.out, launcher, workers, print)
            print("".join(f"{line}\n" for line in not_run_lines(plan.not_run)), end="")
            return 0
        code, not_run = compare(
            question,
            rest.out,
            _choose_launch(common, rest, jobs),
            chapter=chapter,
            overwrite=rest.overwrite,
        )
    except ValueError as error:
        refuse(parser.prog, str(error))
    except OSError as error:
        words = fault_words(error, rest.out, "what the cells have written")
        print(f"{parser.prog}: {words}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped at once; the same command goes on", file=sys.stderr)
        return 130
    return code or (1 if rest.inits and not_run else 0)


def _read_jobs(rest: Namespace) -> int | None:
    """Return how many cells run side by side on a machine; None: one a GPU.

    Raises:
        ValueError: naming the flag, the value and the rule.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("starts a process a cell itself; start it without torchrun")
    if rest.dry_run and rest.overwrite:
        raise ValueError(
            "--overwrite: a dry run deletes nothing; leave it out, or name a new --out"
        )
    if rest.no_wait and rest.slurm is None:
        raise ValueError("--no-wait: only jobs of --slurm go on without this command")
    if rest.ray is not None and rest.slurm is not None:
        raise ValueError("--ray: the cells run there or as jobs of --slurm, not both")
    if rest.ray is not None:
        from ubr_pretrain.ray_session import require_address

        require_address(rest.ray, "--ray")
    if rest.jobs == "auto":
        return None
    if not rest.jobs.isdecimal() or int(rest.jobs) == 0:
        raise ValueError(f"--jobs {rest.jobs}: auto, or a whole number above 0")
    return int(rest.jobs)


def _choose_launch(common: DetConfig, rest: Namespace, jobs: int | None) -> Launch:
    if rest.ray is not None:
        from lesion_det.ray_cluster import RayLauncher

        return RayLauncher(rest.ray, common.device, jobs)
    if rest.slurm is None:
        from lesion_det.launch import local_launcher

        return local_launcher(common.device, jobs)
    from lesion_det.cluster import ClusterLauncher, slurm_executor

    folder = rest.out.resolve() / "cluster"
    executor = slurm_executor(folder, rest.slurm, gpu=common.device != "cpu")
    return ClusterLauncher(executor, folder / "jobs.json", wait=not rest.no_wait)


def compare(
    question: Question,
    out: Path,
    launch: Launch,
    *,
    chapter: UbrChapter | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[int, Mapping[str, str]]:
    """Run or continue all cells and write the report, every few minutes and at the end.

    Args:
        question: what is compared.
        out: the folder of the comparison.
        launch: trains the cells.
        chapter: what the report shows of the regressor.
        overwrite: delete the comparison that is there.
        say: prints a line of progress.

    Returns:
        The exit code (0, 1 where a cell failed, 128 + the signal that stopped it), and the arms
        that could not be run with their reasons.

    Raises:
        ValueError: impossible input: data, no arm that can be run, unequal arms, a folder in use
            or of another comparison.
    """
    from lesion_det.cell_inputs import decode_inputs
    from lesion_det.cells import is_finished
    from lesion_det.gathering import write_comparison
    from lesion_det.launch import Stopped, Task
    from lesion_det.plan import SAVED_PLACES, make_plan, not_run_lines
    from lesion_det.report_tables import markdown_table
    from ubr_pretrain.run_folder import open_run_folder
    from ubr_pretrain.runtime import giving_way

    plan = make_plan(question, say)
    failures: dict[CellKey, str] = {}
    opened = open_run_folder(out, plan.question, overwrite=overwrite, places=SAVED_PLACES)
    with opened as folder:
        _say_moves(folder.moved, say)
        folder.note_moves(plan.question)
        folder.update_manifest(
            status="running",
            inits=question.inits,
            seeds=question.seeds,
            label_fractions=question.fractions,
        )
        cells = out.resolve() / "cells"
        configs = plan.cached_configs(out.resolve() / "inputs")
        tasks = [
            Task(key, config, cells / key.name)
            for key, config in configs.items()
            if not is_finished(cells / key.name)
        ]
        say(f"{len(configs)} cells, {len(configs) - len(tasks)} finished before")
        report_at_s = time.monotonic() + REPORT_EVERY_S
        try:
            if tasks:
                decode_inputs(tasks[0].config, plan.splits)
            with closing(launch(tasks, say)) as endings:
                for ending in endings:
                    if ending.reason:
                        failures[ending.key] = ending.reason
                    if (began_s := time.monotonic()) >= report_at_s:
                        with giving_way():
                            write_comparison(question, plan, out, failures, chapter)
                        ended_s = time.monotonic()
                        report_at_s = ended_s + max(REPORT_EVERY_S, 9 * (ended_s - began_s))
        except Stopped as stopped:
            for key, reason in failures.items():
                say(f"failed: {key.words}: {reason}")
            say(f"{stopped}; the same command continues")
            return stopped.exit_code, plan.not_run
        comparison = write_comparison(question, plan, out, failures, chapter)
        folder.update_manifest(
            status="incomplete" if comparison.faults else "complete",
            faults={cell.name: cell.reason for cell in comparison.faults},
        )
    say(f"\n{markdown_table(comparison)}")
    for line in not_run_lines(plan.not_run):
        say(line)
    for cell in comparison.faults:
        say(f"{cell.status}: {cell.key.words}{': ' if cell.reason else ''}{cell.reason}")
    say(f"{out / 'report.html'}")
    return (1 if comparison.faults else 0), plan.not_run


def _say_moves(moved: Sequence[str], say: Callable[[str], None]) -> None:
    """Say what lies elsewhere than the last time."""
    for line in moved:
        say(f"moved    {line.removeprefix('common.')}; the contents are the same")


if __name__ == "__main__":
    raise SystemExit(main())
