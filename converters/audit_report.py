"""The audit as JSON (everything), Markdown and a terminal table (counts and examples)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from converters.coco_audit import Audit
from converters.defects import KINDS, Defect, by_code, effect, kind_rows
from converters.file_summary import FileSummary
from converters.printed_table import print_table
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically, write_together

EXAMPLES = 3
"""Of every defect in the Markdown; ``audit.json`` has them all."""

_MARKUP = re.compile(r"([\\`*_\[\]<>|&])")


def write_audit(out: Path, audit: Audit) -> None:
    """Write ``audit.json`` and ``audit.md``, or none of them where the disk is full."""
    with write_together(out) as drafts:
        with write_atomically(drafts / "audit.json", "w") as file:
            file.write(to_json(audit_to_dict(audit), indent=1) + "\n")
        with write_atomically(drafts / "audit.md", "w") as file:
            file.write(audit_to_markdown(audit))


def audit_to_dict(audit: Audit) -> dict[str, Any]:
    """Return what ``audit.json`` holds: the comparison, every kind that occurred, every defect."""
    return {
        "table": audit.table,
        "table_sha256": audit.table_sha256,
        "table_rows": audit.num_rows,
        "images_with_rows_that_cannot_be_read": audit.num_unread,
        "images_checked": audit.images_checked,
        "files": [asdict(file) for file in audit.files],
        "kinds": {
            code: {
                "what": KINDS[code].what,
                "effect": effect(code),
                "remedy": KINDS[code].remedy,
                "count": len(found),
            }
            for code, found in by_code(audit.defects).items()
        },
        "defects": [asdict(defect) for defect in audit.defects],
    }


def audit_to_markdown(audit: Audit) -> str:
    """Return the page; whatever comes from the files is escaped."""
    lines = ["# Audit against " + _escaped(audit.table), ""]
    lines += [f"- {_escaped(line)}" for line in _summary_lines(audit)] + [""]
    if not audit.defects:
        return "\n".join([*lines, "No defect.", ""])
    lines += _row(("code", "count", "effect", "what", "what to do"))
    lines += _row(("---",) * 5)
    groups = by_code(audit.defects)
    for code, found in groups.items():
        kind = KINDS[code]
        lines += _row(
            (code, f"{len(found):,}", effect(code), _escaped(kind.what), _escaped(kind.remedy))
        )
    for code, found in groups.items():
        lines += ["", f"## {code}: {_escaped(KINDS[code].what)}", ""]
        lines += [f"- {_escaped(str(defect))}" for defect in found[:EXAMPLES]]
        if len(found) > EXAMPLES:
            lines.append(f"- {len(found) - EXAMPLES:,} more in audit.json")
    return "\n".join([*lines, ""])


def print_audit(audit: Audit) -> None:
    """Print the files, one line a kind of defect, and the first defect of each."""
    for line in _summary_lines(audit):
        print(line)
    if not audit.defects:
        print("no defect")
        return
    print_kinds(audit.defects)


def print_kinds(found: Iterable[Defect]) -> None:
    """Print one row a code, with its count and the first one found."""
    groups = by_code(found)
    print_table(
        ("code", "what", "count", "effect"),
        [(*row, effect(row[0])) for row in kind_rows(groups)],
        num_text=2,
    )
    for code, defects in groups.items():
        print(f"{code}, e.g. {defects[0]}; {KINDS[code].remedy}")


def _summary_lines(audit: Audit) -> list[str]:
    lines = [line for file in audit.files for line in _file_lines(file)]
    if audit.num_unread:
        lines.append(
            f"{audit.num_unread:,} images of the table have rows that cannot be read: "
            "nothing is said of them"
        )
    if not audit.images_checked:
        lines.append("PNGs were not looked for (no --images)")
    return lines


def _file_lines(file: FileSummary) -> list[str]:
    lines = [
        f"{ascii(file.name)[1:-1]}: {file.split} ({file.told_by}), {file.num_images:,} images, "
        f"{file.num_annotations:,} annotations, {file.num_categories:,} categories; "
        f"{file.num_compared:,} annotations found in the table"
    ]
    if file.area_patterns:
        patterns = (
            f"{n:,} {'is' if n == 1 else 'are'} {pattern}" if pattern else f"{n:,} of no known kind"
            for pattern, n in file.area_patterns.items()
        )
        lines.append(f"{ascii(file.name)[1:-1]}: wrong areas: {', '.join(patterns)}")
    for codes, count in file.readings.items():
        if codes and 2 * count > file.num_compared and file.median_px is not None:
            x, y, w, h = file.median_px
            lines.append(
                f"{ascii(file.name)[1:-1]}: the whole file, {count:,} of {file.num_compared:,} "
                f"boxes: {codes} (median difference x {x:+g}, y {y:+g}, w {w:+g}, h {h:+g} px)"
            )
    return lines


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |"]


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)
