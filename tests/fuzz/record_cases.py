"""One mutated record: a table, a JSON, a configuration, a checkpoint; and what is to be said."""

from __future__ import annotations

import io
import json
import struct
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, suppress
from functools import lru_cache
from pathlib import Path
from random import Random

import yaml

from tests.fuzz.byte_mutators import mutate_bytes
from tests.fuzz.field_mutators import Change, png_chunks
from tests.fuzz.originals import Files
from tests.fuzz.record_checks import TABLES
from tests.fuzz.record_mutators import csv_cells, json_values, tree_values
from tests.fuzz.record_originals import ORIGINALS
from tests.fuzz.state_checks import STATES
from ubr_pretrain.config import refuse

MAX_LINE = 2100
RECORDS = {**TABLES, **STATES}


def mutated_record(kind: str, seed: int, index: int) -> tuple[Files, list[str]]:
    """Return the changed files of a record, and how they were changed."""
    rng = Random(f"{seed}/{kind}/{index}")
    files, notes = dict(originals_of(kind)), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(sorted(files))
        content, change = files[name], CHANGES.get(Path(name).suffix)
        if change is not None and rng.random() < 0.75:
            try:
                files[name], how = change(rng, content)
            except Exception:  # noqa: BLE001  (a second change of what a first one broke)
                files[name], how = mutate_bytes(rng, content, len(content), content)
        else:
            files[name], how = mutate_bytes(rng, content, len(content), content)
        notes.append(f"{name}: {how}")
    return files, notes


@lru_cache(maxsize=64)
def originals_of(kind: str) -> Files:
    """Return the sound files of a kind of record."""
    return ORIGINALS[kind]()


def _yaml_values(rng: Random, content: bytes) -> tuple[bytes, str]:
    tree, how = tree_values(rng, yaml.safe_load(content))
    text = yaml.safe_dump(tree)
    if rng.random() < 0.1:
        extra = rng.choice(
            ("a: &x [1]\nb: *x\n", "!!python/object/apply:os.system ['true']\n", "\t- x\n",
             "? [a]\n: b\n", "seed: 1\nseed: 2\n", "- " * 2000 + "\n", "%YAML 3.0\n---\n")
        )  # fmt: skip
        text, how = rng.choice((text + extra, extra + text)), f"{how}; {extra[:20]!r} added"
    return text.encode("utf-8", "surrogatepass"), how


def _json_lines(rng: Random, content: bytes) -> tuple[bytes, str]:
    lines = content.splitlines(keepends=True)
    n = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            lines.pop(n)
            return b"".join(lines), f"line {n} removed"
        case 1:
            lines.insert(rng.randrange(len(lines) + 1), lines[n])
            return b"".join(lines), f"line {n} doubled"
        case _:
            changed, how = json_values(rng, lines[n])
            lines[n] = changed + b"\n"
            return b"".join(lines), f"line {n}: {how}"


def _safetensors_header(rng: Random, content: bytes) -> tuple[bytes, str]:
    (size,) = struct.unpack("<Q", content[:8])
    header, how = json_values(rng, content[8 : 8 + size])
    if rng.random() < 0.3:
        tree = json.loads(content[8 : 8 + size])
        about = tree.get("__metadata__", {})
        for name in about:
            with suppress(ValueError, RecursionError):
                inner, how = json_values(rng, about[name].encode())
                about[name] = inner.decode("utf-8", "replace")
        header = json.dumps(tree).encode()
    stated = len(header) if rng.random() < 0.9 else rng.randrange(1 << rng.randrange(1, 63))
    return struct.pack("<Q", stated) + header + content[8 + size :], f"header: {how}"


CHANGES: Mapping[str, Change] = {
    ".csv": csv_cells,
    ".json": json_values,
    ".yaml": _yaml_values,
    ".jsonl": _json_lines,
    ".safetensors": _safetensors_header,
    ".png": png_chunks,
}


def _as_printed(refusal: ValueError) -> str:
    """Return the line that a command ends with."""
    printed = io.StringIO()
    with redirect_stderr(printed), suppress(SystemExit):
        refuse("fuzz", str(refusal))
    return printed.getvalue().removesuffix("\n")


def record_verdict(kind: str, folder: Path) -> tuple[str, str]:
    """Read the files in ``folder`` and say what is to be said; what is not ValueError goes on."""
    name, record = RECORDS[kind]
    path = folder / name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = record.read(path)
    except ValueError as refusal:
        text = _as_printed(refusal)
        if not text.isprintable():
            return "FAULT", f"the message is not one printable line: {text!r}"
        if len(text) > MAX_LINE:
            return "FAULT", f"the message has {len(text)} characters: {text[:200]}"
        # A message names the file, or one beside it, or the folder of both.
        if not any(word in str(refusal) for word in (name, folder.name)):
            return "FAULT", f"the message names no file: {text[:300]}"
        return "refused", type(refusal).__name__
    try:
        apart = record.check(path, result)
    except Exception as error:  # noqa: BLE001  (what a plain parse cannot read, and we did)
        apart = f"a plain parse fails: {type(error).__name__}: {error}"
    return ("WRONG", apart) if apart else ("as a plain parse says", "")
