"""One run over the scans of an archive: read, score, record, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ubr_pretrain.ct import Volume, VolumeRefused, Window
from ubr_pretrain.figures import draw_scores
from ubr_pretrain.images import SOFT_TISSUE, read_image
from ubr_pretrain.read_ahead import read_ahead
from ubr_pretrain.runtime import StopRequest, stop_on_signals
from ubr_pretrain.scans import ImageEntry, content_of, find_scans, place_of
from ubr_pretrain.score_archive import ScoreArchive, open_archive
from ubr_pretrain.score_lines import (
    IMAGE_HEADING,
    VOLUME_HEADING,
    image_line,
    in_progress,
    volume_details,
    volume_line,
)
from ubr_pretrain.score_tables import Format, write_tables
from ubr_pretrain.scorer import Scorer
from ubr_pretrain.volumes import SCORING_TILT_DEG, VolumeEntry

FEW = 5
"""So many volumes are printed with every anomaly in words."""


@dataclass(frozen=True)
class ScoringRun:
    """What to do with a scan.

    Attributes:
        scorer: the regressor and its calibration.
        pictures: draw the curve of every volume.
        pages: write a page of every volume.
        window: HU that the grey values 0..255 of 8-bit pictures stand for.
        pixel_mm: side of a pixel, for pictures without their own.
        with_paths: record where files lie; a path may name a patient.
    """

    scorer: Scorer
    pictures: bool = True
    pages: bool = False
    window: Window = SOFT_TISSUE
    pixel_mm: float | None = None
    with_paths: bool = False

    def recorded(self, entry: VolumeEntry, archive: ScoreArchive) -> dict[str, Any] | None:
        """Return the record of a volume that needs nothing more, else None."""
        content = content_of(entry)
        name = archive.name_for(entry.name, place_of(entry), content)
        done = archive.holds(name, content) and all(
            file.exists() for file in self._side_files(archive, name)
        )
        return archive.record(name) if done else None

    def record_volume(
        self, entry: VolumeEntry, volume: Volume | VolumeRefused, archive: ScoreArchive
    ) -> dict[str, Any]:
        """Score a volume, or note why it was refused; return its record."""
        place, content = place_of(entry), content_of(entry)
        name = archive.name_for(entry.name, place, content)
        record: dict[str, Any] = {"volume": name, "subject": entry.subject}
        if isinstance(volume, VolumeRefused):
            print(volume, file=sys.stderr)
            record |= {"code": volume.code, "cause": volume.cause}
        else:
            scored = self.scorer.score_volume(volume, name)
            record |= scored.to_record()
            for file in self._side_files(archive, name):
                if file.suffix == ".png":
                    draw_scores(volume, scored.curve, file, name)
                else:
                    from ubr_pretrain.scan_page import write_scan_page

                    write_scan_page(volume, scored, file)
        archive.add("volumes", name, place, content, self._located(record, entry.path))
        return record

    def _side_files(self, archive: ScoreArchive, name: str) -> list[Path]:
        suffixes = [".png"] * self.pictures + [".html"] * self.pages
        return [archive.out / f"{name}{suffix}" for suffix in suffixes]

    def record_image(self, entry: ImageEntry, archive: ScoreArchive) -> dict[str, Any] | None:
        """Score a single slice, unless it is recorded, and return its record.

        None for a coloured picture that the user did not name: it is no slice.
        """
        place, content = place_of(entry), content_of(entry)
        name = archive.name_for(entry.name, place, content)
        if archive.holds(name, content):
            return archive.record(name)
        try:
            image = read_image(entry.path, self.window, self.pixel_mm)
        except VolumeRefused as refusal:
            if refusal.code == "E-RGB" and not entry.named:
                return None
            print(refusal, file=sys.stderr)
            record: dict[str, Any] = {"image": name, "code": refusal.code, "cause": refusal.cause}
        else:
            scored = self.scorer.score_image(image, name)
            record = {"image": name, "subject": entry.subject or name} | scored.to_record()
        archive.add("images", name, place, content, self._located(record, entry.path))
        return record

    def _located(self, record: dict[str, Any], path: Path) -> dict[str, Any]:
        return record | {"path": str(path)} if self.with_paths else record


def score_scans(
    paths: Sequence[Path],
    out: Path,
    run: ScoringRun,
    *,
    identity: Mapping[str, Any],
    formats: Sequence[Format] = ("csv", "json"),
    overwrite: bool = False,
) -> int:
    """Score all volumes and single slices below ``paths`` into the folder ``out``.

    Args:
        paths: files, folders, DICOM trees.
        out: folder of the results; a run that was stopped there is continued.
        run: what to do with each.
        identity: of the scorer (``scorer_identity``).
        formats: of the tables.
        overwrite: delete the results in ``out`` first.

    Returns:
        0; 1 where something was refused; 130 or 143 where a signal ended the run early (what was
        scored is written).

    Raises:
        ValueError: nothing to score, or results of other settings in the way.
    """
    scans = find_scans(paths)
    if not scans.volumes and not scans.images:
        skipped = ", ".join(f"{count} {why}" for why, count in scans.volumes.skipped.items())
        given = " ".join(map(str, paths[:5]))
        raise ValueError(f"{given}: no CT volume or slice found ({skipped or 'nothing there'})")
    header = {
        **identity,
        "window_hu": [run.window.lower_hu, run.window.upper_hu],
        "pixel_mm": run.pixel_mm,
        "with_paths": run.with_paths,
    }
    with open_archive(out, header, overwrite=overwrite) as archive, stop_on_signals() as stop:
        volumes = _score_volumes(run, scans.volumes, archive, stop)
        images, num_coloured = _score_images(run, scans.images, archive, stop)
        write_tables(archive, formats)
    over = [f"{count} {why}" for why, count in scans.volumes.skipped.items()]
    over += [f"{num_coloured} coloured pictures"] if num_coloured else []
    print(_summary(volumes, images, over), f"see {out}", sep="; ")
    if stop.signal is not None:
        print("stopped early: the same command goes on from here", file=sys.stderr)
        return stop.exit_code
    return 1 if any(volumes) or any(images) else 0


def _score_volumes(
    run: ScoringRun, entries: Sequence[VolumeEntry], archive: ScoreArchive, stop: StopRequest
) -> list[bool]:
    """Record volumes; return for each whether it was refused."""
    refused: list[bool] = []

    def say(record: Mapping[str, Any]) -> None:
        refused.append("code" in record)
        details = volume_details(record) if len(entries) <= FEW else ()
        print(volume_line(record), *details, sep="\n", flush=True)

    if entries:
        print(VOLUME_HEADING)
    pending = []
    for entry in entries:
        if record := run.recorded(entry, archive):
            say(record)
        else:
            pending.append(entry)
    coming = read_ahead(pending, allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
    for entry, volume in in_progress(coming, len(pending), "volumes"):
        say(run.record_volume(entry, volume, archive))
        if stop.signal is not None:
            break
    return refused


def _score_images(
    run: ScoringRun, entries: Sequence[ImageEntry], archive: ScoreArchive, stop: StopRequest
) -> tuple[list[bool], int]:
    """Record slices; return for each whether it was refused, and how many are no slices."""
    refused: list[bool] = []
    num_coloured = 0
    if entries and stop.signal is None:
        print(IMAGE_HEADING)
    for entry in in_progress(entries, len(entries), "slices"):
        if stop.signal is not None:
            break
        if record := run.record_image(entry, archive):
            refused.append("code" in record)
            print(image_line(record), flush=True)
        else:
            num_coloured += 1
    return refused, num_coloured


def _summary(volumes: Sequence[bool], images: Sequence[bool], over: Sequence[str]) -> str:
    """Say what was scored, refused and passed over."""
    scored = [f"{len(volumes) - sum(volumes)} volumes"] if volumes or not images else []
    scored += [f"{len(images) - sum(images)} slices"] if images else []
    passed = f" ({', '.join(over)} passed over)" if over else ""
    return f"{' and '.join(scored)} scored, {sum(volumes) + sum(images)} refused{passed}"
