"""Train the lesion detector from every start, over several seeds, and report what differs.

Commands:
    compare_inits.py --coco coco/ --images Images_png/ --ubr ubr.safetensors --out runs/compare
    compare_inits.py --preset laptop --coco coco/ --images Images_png/ --ubr ubr.safetensors
        --inits random ubr --seeds 0 1 --out runs/compare
    compare_inits.py ... --dry-run

Every other flag is one of ``train_det.py`` and holds for all arms. ``--ubr`` is the regressor that
was trained from scratch, ``--ubr-imagenet`` the one that started from ImageNet. An arm whose
weights are not at hand is listed as not run, with the reason.

The same command continues: cells that finished are kept, the one that was killed resumes, failed
ones are tried again; arms and seeds may be added. It writes into ``--out``: ``cells/ARM-seedK/``
(run folders of ``train_det.py``), ``report.html``, ``comparison.json``, ``cells.csv``,
``table.md``. Exit code 1: a cell failed, or an arm that was asked for could not be run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from lesion_det.det_config import Arm, DetConfig
from ubr_pretrain.config import config_parser, parse_config, refuse

if TYPE_CHECKING:  # torch and its friends are imported once the flags are right
    from lesion_det.cells import CellAnswers, CellKey
    from lesion_det.comparison import Comparison
    from lesion_det.plan import Plan, Question
    from lesion_det.predictions import Predictions
    from lesion_det.ubr_chapter import UbrChapter

PAPER_ARMS: tuple[Arm, ...] = ("random", "ubr", "imagenet", "ubr+imagenet")
DEFAULT_SEEDS = (0, 1, 2)
DEFAULT_TITLE = "Lesion detection from different starts"

GALLERY = 1
"""Stream of random numbers that chooses the slices shown."""

TrainCell = Callable[[DetConfig, Path], int]
"""Trains one cell in its folder, resuming what is there; returns 0, or 128 + a signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and compare; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = config_parser(
        DetConfig, "compare_inits.py", (__doc__ or "").split("\n\n", maxsplit=1)[0], "det"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--inits", nargs="+", help=f"arms (default: {' '.join(PAPER_ARMS)})")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(DEFAULT_SEEDS))
    parser.add_argument("--ubr-imagenet", type=Path | None, help="UBR that began from ImageNet")
    parser.add_argument("--title", default=DEFAULT_TITLE, help="of the report")
    parser.add_argument("--ubr-run", type=Path | None, help="run of train_ubr.py, for the report")
    parser.add_argument("--scores", type=Path | None, help="of score_volumes.py, for the report")
    parser.add_argument("--pictures", nargs="*", type=Path, default=[], help="for the report")
    parser.add_argument("--dry-run", action="store_true", help="check and print the plan")
    parser.add_argument("--overwrite", action="store_true", help="delete the comparison there")
    for flag, instead in (("--init", "--inits"), ("--seed", "--seeds")):
        if any(a == flag or a.startswith(f"{flag}=") for a in arguments):
            refuse(parser.prog, f"{flag}: every cell has its own; use {instead}")
    common, rest = parse_config(parser, DetConfig, arguments, presets="det")
    inits = tuple(dict.fromkeys(rest.inits or PAPER_ARMS))
    if unknown := [arm for arm in inits if arm not in get_args(Arm)]:
        refuse(parser.prog, f"--inits {unknown[0]}: not one of {', '.join(get_args(Arm))}")
    if any(seed < 0 for seed in rest.seeds):
        refuse(parser.prog, f"--seeds {min(rest.seeds)}: must be >= 0")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        refuse(parser.prog, "runs its cells one after another; start it without torchrun")

    from lesion_det.plan import Question, make_plan
    from lesion_det.ubr_chapter import read_ubr_chapter

    seeds = tuple(dict.fromkeys(rest.seeds))
    question = Question(common, inits, seeds, ubr_imagenet=rest.ubr_imagenet, title=rest.title)
    try:
        chapter = read_ubr_chapter(rest.ubr_run, rest.scores, rest.pictures)
        if rest.dry_run:
            for key in make_plan(question, say=print).configs:
                print(f"would train {key.words}")
            return 0
        code, not_run = compare(question, rest.out, chapter=chapter, overwrite=rest.overwrite)
    except ValueError as error:
        refuse(parser.prog, str(error))
    return code or (1 if rest.inits and not_run else 0)


def compare(
    question: Question,
    out: Path,
    *,
    chapter: UbrChapter | None = None,
    overwrite: bool = False,
    train_cell: TrainCell | None = None,
    say: Callable[[str], None] = print,
) -> tuple[int, Mapping[str, str]]:
    """Run or continue all cells and write the report, anew after every cell.

    Args:
        question: what is compared.
        out: the folder of the comparison.
        chapter: what the report shows of the regressor.
        overwrite: delete the comparison that is there.
        train_cell: ``train_det.train`` by default.
        say: prints a line of progress.

    Returns:
        The exit code (0, 1 where a cell failed, 128 + the signal that stopped it), and the arms
        that could not be run with their reasons.

    Raises:
        ValueError: impossible input: data, no arm that can be run, unequal arms, a folder in use
            or of another comparison.
    """
    from lesion_det.cells import is_finished
    from lesion_det.plan import SavedQuestion, make_plan
    from lesion_det.report import markdown_table
    from ubr_pretrain.run_folder import open_run_folder

    train_cell = train_cell or _train_cell
    plan = make_plan(question, say)
    saved = SavedQuestion(common=question.shared, data_sha256=plan.data_sha256)
    failures: dict[CellKey, str] = {}
    with open_run_folder(out, saved, overwrite=overwrite) as folder:
        folder.update_manifest(status="running", inits=question.inits, seeds=question.seeds)
        for number, (key, config) in enumerate(plan.configs.items(), start=1):
            cell = out / "cells" / key.name
            heading = f"[{number}/{len(plan.configs)}] {key.words}"
            if is_finished(cell):
                say(f"{heading}: finished before")
                continue
            say(f"{heading}: training in {cell}")
            try:
                code = train_cell(config, cell)
            except (ValueError, ArithmeticError, MemoryError, RuntimeError, OSError) as error:
                failures[key] = " ".join(str(error).split()) or type(error).__name__
                say(f"{heading}: failed: {failures[key]}")
            else:
                if code:
                    say(f"{heading}: stopped; the same command continues")
                    return code, plan.not_run
            if number < len(plan.configs):  # what there is so far, for those who look meanwhile
                _report(question, plan, out, failures, chapter)
        comparison = _report(question, plan, out, failures, chapter)
        folder.update_manifest(
            status="incomplete" if comparison.faults else "complete",
            faults={cell.name: cell.reason for cell in comparison.faults},
        )
    say(f"\n{markdown_table(comparison)}\n{out / 'report.html'}")
    return (1 if comparison.faults else 0), plan.not_run


def _train_cell(config: DetConfig, out: Path) -> int:
    from lesion_det.train_det import train

    return train(config, out).exit_code


def _report(
    question: Question,
    plan: Plan,
    out: Path,
    failures: Mapping[CellKey, str],
    chapter: UbrChapter | None,
) -> Comparison:
    """Gather what there is and write the report."""
    import torch

    from lesion_det.cells import BOOTSTRAP_SEED, read_cell
    from lesion_det.comparison import Comparison, compare_arms
    from lesion_det.report import Evidence, write_report
    from ubr_pretrain.runtime import describe_machine, generator

    cells: dict[CellKey, CellAnswers] = {
        key: read_cell(
            out / "cells" / key.name,
            key,
            plan.ground_truth,
            expected=plan.fingerprints[key].hashes,
            failure=failures.get(key, ""),
        )
        for key in plan.configs
    }
    machines = [answers.cell.machine for answers in cells.values()]
    machine = next((m for m in machines if m), None) or describe_machine(torch.device("cpu"))
    comparison = Comparison(
        title=question.title,
        data=plan.data_words(question.common.images),
        settings=question.settings_yaml(),
        audit=plan.audit,
        versions=machine,
        **compare_arms(question.inits, cells, plan.not_run, plan.ground_truth),
    )
    finished: dict[str, list[Predictions]] = {}
    for key, answers in cells.items():
        if answers.predictions is not None and key.fraction == question.fractions[0]:
            finished.setdefault(key.arm, []).append(answers.predictions)
    evidence = Evidence(
        plan.ground_truth,
        {arm: tuple(of_arm) for arm, of_arm in finished.items()},
        question.common.images,
        chapter,
    )
    write_report(out, comparison, evidence, generator(BOOTSTRAP_SEED, GALLERY))
    return comparison


if __name__ == "__main__":
    raise SystemExit(main())
