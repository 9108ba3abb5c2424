"""The paper's evidence: Table 1 with its six rows, and Figures 2, 3a, 3b and 4.

Commands:
    evaluate_ubr.py --preset laptop --out runs/evidence
    evaluate_ubr.py --preset paper-scale --out runs/evidence
    evaluate_ubr.py --preset laptop --data ct/ --labels ct/slice_classes.csv
        --sets.unlabelled 0.6 --sets.test 0.2 --sets.labelled 0.2 --out runs/evidence

Without ``--data`` a cohort of phantoms is rendered. Subjects are drawn into four sets (unlabelled,
test, labelled, and two volumes that set the thresholds); that the sets share no subject is checked.
Every training is kept as it ends, and the same command continues. It writes into ``--out``:
``evidence.html``, ``evidence.json``, ``figures/*.png`` and ``*.pdf``, ``sets.csv`` (who is in which
set), ``config.yaml``, ``run.json``, ``evidence.log`` and ``cells/`` (one folder a training).

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3; the defaults are the paper's numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ubr_pretrain.config import config_parser, give_up, parse_config, refuse
from ubr_pretrain.evidence_config import EvidenceConfig

Say = Callable[[str], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and gather the evidence; return the exit code."""
    summary = (__doc__ or "").split("\n\n")[0]
    parser = config_parser(EvidenceConfig, "evaluate_ubr.py", summary, "evidence")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="delete the results there")
    config, rest = parse_config(parser, EvidenceConfig, argv, presets="evidence")
    if missing := [path for path in config.data if not path.exists()]:
        refuse(parser.prog, f"--data {missing[0]}: no such file or folder")
    if config.labels is not None and not config.labels.is_file():
        refuse(parser.prog, f"--labels {config.labels}: no such file")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        refuse(parser.prog, "trains one cell after another; start it without torchrun")

    try:
        return gather_evidence(config, rest.out, overwrite=rest.overwrite)
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)
    except FloatingPointError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; the same command continues", file=sys.stderr)
        return 130


def gather_evidence(config: EvidenceConfig, out: Path, *, overwrite: bool = False) -> int:
    """Run or continue all trainings, then write table, figures and page into ``out``.

    Returns:
        0; 1 where volumes could not be read (they are named in the log); 128 + the signal that
        ended a training early.

    Raises:
        ValueError: impossible input: data, labels, too few subjects, a folder in use.
        FloatingPointError: a loss is not finite.
    """
    from ubr_pretrain.evidence_cells import run_cells
    from ubr_pretrain.evidence_data import read_evidence
    from ubr_pretrain.evidence_page import write_evidence
    from ubr_pretrain.evidence_plan import Stopped, make_plan
    from ubr_pretrain.labelled_cohort import write_sets
    from ubr_pretrain.machine import describe_machine
    from ubr_pretrain.run_folder import open_run_folder
    from ubr_pretrain.runtime import start_ranks

    out = out.resolve()  # the trainings' own configurations name folders below it
    with (
        open_run_folder(out, config, overwrite=overwrite) as folder,
        start_ranks(config.ubr.device) as ranks,
    ):
        say = _journal(out / "evidence.log")
        data = read_evidence(config, out, ranks.device, say)
        before = folder.read_manifest().get("data_sha256", data.sha256)
        if before != data.sha256:
            raise ValueError(f"--out {out}: the data have changed since it was begun; use another")
        machine = describe_machine(ranks.device)
        folder.update_manifest(status="running", machine=machine, data_sha256=data.sha256)
        write_sets(data.sets, out / "sets.csv")
        for name, counts in data.sets.summary().items():
            say(f"{name}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        try:
            cells = run_cells(make_plan(data), out / "cells", say)
        except Stopped as stopped:
            folder.update_manifest(status="interrupted")
            say(str(stopped))
            return stopped.code
        page = write_evidence(out, data, cells, machine)
        folder.update_manifest(status="complete")
        say(f"{page.text_table}\n{out / 'evidence.html'}")
    return 1 if data.cohort.refused else 0


def _journal(log: Path) -> Say:
    """Return a way to print a line and keep it."""

    def say(text: str) -> None:
        print(text, flush=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    return say


if __name__ == "__main__":
    raise SystemExit(main())
