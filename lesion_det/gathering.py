"""The comparison as it stands: its cells read from their folders, compared, and reported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from lesion_det.cells import BOOTSTRAP_SEED, CellAnswers, CellKey, read_cell
from lesion_det.comparison import Comparison, compare_arms
from lesion_det.filter_drift import measure_drift
from lesion_det.plan import Plan, Question
from lesion_det.predictions import Predictions
from lesion_det.recipe import describe_recipe
from lesion_det.report import Evidence, write_report
from lesion_det.ubr_chapter import UbrChapter
from ubr_pretrain.machine import describe_machine
from ubr_pretrain.runtime import generator

GALLERY = 1
"""Stream of random numbers that chooses the slices shown."""


def write_comparison(
    question: Question,
    plan: Plan,
    out: Path,
    failures: Mapping[CellKey, str],
    chapter: UbrChapter | None,
) -> Comparison:
    """Read every cell in whatever state it is, compare, and write the report.

    Args:
        question: what is compared.
        plan: its cells.
        out: the folder of the comparison.
        failures: why cells failed in this session.
        chapter: what the report shows of the regressor.

    Raises:
        PredictionsRefused: a finished cell whose predictions answer other images.
    """
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
    drift = measure_drift(
        plan.configs,
        [key for key, answers in cells.items() if answers.predictions is not None],
        out / "cells",
        plan.ground_truth,
    )
    patients = len({image.patient_index for image in plan.splits.learned})
    comparison = Comparison(
        title=question.title,
        data=plan.data_words(question.common.images),
        recipe=describe_recipe(question.shared),
        settings=question.settings_yaml(),
        audit=plan.audit,
        versions=machine,
        drift=tuple(row for of_arm in drift for row in of_arm.layers),
        **compare_arms(question.inits, cells, plan.not_run, plan.ground_truth, patients),
    )
    finished: dict[str, list[Predictions]] = {}
    for key, answers in cells.items():
        if answers.predictions is not None and key.fraction == question.fractions[0]:
            finished.setdefault(key.arm, []).append(answers.predictions)
    evidence = Evidence(
        plan.ground_truth,
        {arm: tuple(of_arm) for arm, of_arm in finished.items()},
        question.common.images,
        drift,
        chapter,
    )
    write_report(out, comparison, evidence, generator(BOOTSTRAP_SEED, GALLERY))
    return comparison
