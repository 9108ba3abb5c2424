"""DeepLesion -> COCO: what one conversion does, in order, and everything it found on the way.

Writes ``train.json``, ``val.json``, ``test.json`` and ``conversion.json`` (the same counts and
findings that the command prints), all four or none. Nothing is written where the whole table is
refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from converters.coco import lesions_to_coco, write_coco
from converters.cohort import (
    OFFICIAL,
    SplitCounts,
    by_image,
    merge_rows,
    official_differences,
    patients_in_two_splits,
    settle_noisy,
    split_counts,
    studies_and_patients,
)
from converters.deeplesion import DeepLesionTable, read_deeplesion
from converters.deeplesion_row import MAX_OUTSIDE_PX
from converters.image_matching import ImageMatch, match_images
from converters.lesions import (
    LESION_TYPES,
    UNKNOWN_SPLIT,
    UNKNOWN_TYPE,
    DeepLesionRefused,
    Finding,
    KeySlice,
    Lesion,
    finding,
)
from converters.png_folder import Depth, PngFolder
from converters.tree_audit import audit_tree, coverage
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import Config
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically, write_together

MANIFEST = "conversion.json"


class ConversionConfig(Config):
    """What a conversion keeps, and what it insists on.

    Attributes:
        noisy: keep or drop the lesions that the table calls possibly noisy.
        require_all: refuse the conversion where a PNG is missing.
        checksums: read the PNG of every key slice to its end and check its chunks.
        check_images: beyond that, decode these PNGs and look at their values, read the headers of
            the neighbours, and audit the folder as a whole.
        allow_leakage: go on where a patient is in two splits.
        allow_other_counts: go on where a full table has other counts than the official one.
        max_outside_px: boxes that leave their image by at most this are clipped to it.
    """

    noisy: Literal["keep", "drop"] = "keep"
    require_all: bool = False
    checksums: bool = False
    check_images: bool = False
    allow_leakage: bool = False
    allow_other_counts: bool = False
    max_outside_px: Annotated[float, Field(ge=0)] = MAX_OUTSIDE_PX

    @property
    def depth(self) -> Depth:
        """How much of a PNG is read."""
        return "pixels" if self.check_images else "checksums" if self.checksums else "headers"


@dataclass(frozen=True)
class Conversion:
    """What was converted, and what was found.

    Attributes:
        counts: what is counted -> split ("unknown" where a row does not say it) -> how often.
        official: one line a split, or the comparison with the official counts.
        refused: rows and images left out for a fault; the command then ends with 1.
        missing: rows whose image has no PNG, left out.
        noticed: what was changed, dropped by rule, or is only told.
    """

    counts: Mapping[str, Mapping[str, int]]
    official: tuple[str, ...]
    refused: tuple[Finding, ...]
    missing: tuple[Finding, ...]
    noticed: tuple[Finding, ...]
    images_checked: bool


def convert_deeplesion(
    table_csv: Path, out: Path, config: ConversionConfig, images: Path | None = None
) -> Conversion:
    """Convert ``DL_info.csv`` into one COCO file a split.

    Args:
        table_csv: the table.
        out: folder of the four JSON files; those of an earlier conversion are replaced.
        config: what to keep and to insist on.
        images: the ``Images_png`` folder; None: sizes are the table's, and no file is looked for.

    Raises:
        DeepLesionRefused: the table cannot be read; a patient is in two splits; a full table has
            other counts than the official one; PNGs are missing and all are required; no row is
            left.
        NotADirectoryError: ``images`` is not a folder.
        OSError: a file cannot be written; then none of the four is there.
    """
    table = read_deeplesion(table_csv, config.max_outside_px)
    official = _official_lines(table, table_csv, allow=config.allow_other_counts)
    leaks = _leaks(table.lesions, table_csv, allow=config.allow_leakage)
    merged, contradicting, repeated = merge_rows(table.lesions)
    kept, noisy = settle_noisy(merged, config.noisy)
    match = ImageMatch({}, [], [], [])
    about_images: list[Finding] = []
    whole: Mapping[str, Mapping[str, int]] = {}
    if images is not None:
        folder = PngFolder(images)
        match = match_images(kept, folder, config.depth)
        about_images = match.noticed
        if config.check_images:
            about_images = [*match.noticed, *audit_tree(table.lesions, folder)]
            whole = coverage(match.file_names, folder)
        kept = [lesion for lesion in kept if lesion.key_slice in match.file_names]
        if match.missing and config.require_all:
            raise DeepLesionRefused(
                f"{table_csv}: E-MISSING  {len({each.file_name for each in match.missing}):,} PNGs "
                f"are missing and all are required, the first: {match.missing[0].file_name}"
            )
    refused = (*table.refused, *contradicting, *match.faulty)
    if not kept:
        first = next(iter((*refused, *match.missing)), "the table has no rows")
        raise DeepLesionRefused(f"{table_csv}: no row of {len(table.rows):,} is left; {first}")
    conversion = Conversion(
        counts=_counts(
            table,
            refused,
            [*leaks, *repeated, *noisy, *match.missing, *about_images],
            kept,
            whole,
            images_checked=images is not None,
        ),
        official=official,
        refused=_by_line(refused),
        missing=_by_line(match.missing),
        noticed=_by_line([*table.noticed, *leaks, *repeated, *noisy, *about_images]),
        images_checked=images is not None,
    )
    file_names = match.file_names if images is not None else None
    _write(out, table_csv, config, conversion, kept, file_names)
    return conversion


def _official_lines(table: DeepLesionTable, source: Path, *, allow: bool) -> tuple[str, ...]:
    counts = split_counts(table)
    differences = official_differences(counts)
    if differences and not allow:
        raise DeepLesionRefused(
            f"{source}: a full table, but not the official counts: {'; '.join(differences)} "
            "(--allow-other-counts goes on)"
        )
    if differences:
        return tuple(f"allowed: {line}" for line in differences)
    lines = [_official_line(split, counts[split], OFFICIAL[split]) for split in OFFICIAL]
    return (*lines, *([] if differences is None else [studies_and_patients(table.lesions)]))


def _official_line(split: str, found: SplitCounts, official: SplitCounts) -> str:
    complete = "complete" if found == official else "a part"
    return (
        f"{split}: {found.rows:,} of {official.rows:,} official rows, "
        f"{found.images:,} of {official.images:,} images ({complete})"
    )


def _leaks(lesions: Sequence[Lesion], source: Path, *, allow: bool) -> list[Finding]:
    patients = patients_in_two_splits(lesions)
    named = [f"{patient} ({', '.join(splits)})" for patient, splits in patients.items()]
    if patients and not allow:
        more = f" and {len(named) - 10} more" if len(named) > 10 else ""
        raise DeepLesionRefused(
            f"{source}: leakage, {len(named)} patient(s) in more than one split: "
            f"{', '.join(named[:10])}{more} (--allow-leakage goes on)"
        )
    return [
        finding("W-LEAK", lesion, f"patient {lesion.key_slice.patient_index} is in two splits")
        for lesion in lesions
        if lesion.key_slice.patient_index in patients
    ]


def _counts(
    table: DeepLesionTable,
    refused: Iterable[Finding],
    others: Iterable[Finding],
    kept: Sequence[Lesion],
    whole: Mapping[str, Mapping[str, int]],
    *,
    images_checked: bool,
) -> dict[str, dict[str, int]]:
    """Count every quirk of the table by split; what did not occur is counted as none."""
    images = by_image(kept)
    firsts = [rows[0].key_slice for rows in images.values()]
    codes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in (*refused, *table.noticed, *others):
        codes[each.code][each.split] += 1
    tallies = {"rows": Counter(split for split, _ in table.rows)}
    tallies["rows or images refused"] = Counter(each.split for each in refused)
    for code in sorted({each.code for each in refused}):
        tallies[f"  {code}"] = codes[code]
    tallies |= {
        "duplicate rows dropped": codes["W-DUPLICATE"],
        "possibly noisy rows dropped": codes["W-NOISY"],
        "images whose rows disagree": codes["W-CONFLICT"],
        "rows of patients in two splits": codes["W-LEAK"],
        "boxes clipped to their image": codes["W-CLIPPED"],
        "boxes unlike their measured points": codes["W-MEASURE"],
    }
    if images_checked:
        tallies["rows without a PNG, left out"] = codes["W-MISSING"]
        tallies["images with gaps inside Slice_range"] = codes["W-GAP"]
    tallies |= {label: Counter(tally) for label, tally in whole.items()}
    noisy = (lesion.key_slice for lesion in kept if lesion.possibly_noisy)
    untyped = (lesion.key_slice for lesion in kept if lesion.lesion_type == UNKNOWN_TYPE)
    several = (rows[0].key_slice for rows in images.values() if len(rows) > 1)
    tallies |= {
        "lesions": _by_split(lesion.key_slice for lesion in kept),
        "lesions possibly noisy": _by_split(noisy),
        "lesions of unknown type": _by_split(untyped),
        "images": _by_split(firsts),
        "images with several lesions": _by_split(several),
        "images not 512x512": _by_split(
            key for key in firsts if (key.width_px, key.height_px) != (512, 512)
        ),
        "images of unknown age": _by_split(key for key in firsts if key.patient_age is None),
        "series": _by_split({key.series: key for key in firsts}.values()),
        "studies": _by_split({key.order[:2]: key for key in firsts}.values()),
        "patients": _by_split({key.patient_index: key for key in firsts}.values()),
    }
    splits = [*OFFICIAL, *([UNKNOWN_SPLIT] if tallies["rows"][UNKNOWN_SPLIT] else [])]
    return {label: {s: tally[s] for s in splits} for label, tally in tallies.items()}


def _by_line(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda each: each.line))


def _by_split(slices: Iterable[KeySlice]) -> Counter[str]:
    return Counter(key_slice.split for key_slice in slices)


def _write(
    out: Path,
    table_csv: Path,
    config: ConversionConfig,
    conversion: Conversion,
    kept: Sequence[Lesion],
    file_names: Mapping[KeySlice, str] | None,
) -> None:
    source, sha256 = table_csv.name, file_sha256(table_csv)
    types = Counter(lesion.lesion_type for lesion in kept)
    manifest: dict[str, Any] = {
        "source": source,
        "source_sha256": sha256,
        "config": config.model_dump(mode="json"),
        "lesion_types": {name: types[number] for number, name in LESION_TYPES.items()},
        "outputs": {},
        **asdict(conversion),
    }
    with write_together(out) as drafts:
        for split in OFFICIAL:
            draft = drafts / f"{split}.json"
            write_coco(draft, lesions_to_coco(kept, split, source, sha256, file_names))
            manifest["outputs"][draft.name] = file_sha256(draft)
        with write_atomically(drafts / MANIFEST, "w") as file:
            file.write(to_json(manifest, indent=1) + "\n")
