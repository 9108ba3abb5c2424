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
from ubr_pretrain.runtime import stop_on_signals
from ubr_pretrain.scans import ImageEntry, content_of, find_scans, place_of
from ubr_pretrain.score_archive import ScoreArchive, open_archive
from ubr_pretrain.score_lines import (
    IMAGE_HEADING,
    VOLUME_HEADING,
    image_line,
    in_progress,
    volume_line,
)
from ubr_pretrain.score_tables import Format, write_tables
from ubr_pretrain.scorer import Scorer
from ubr_pretrain.volumes import SCORING_TILT_DEG, VolumeEntry


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
    volumes: list[bool] = []  # whether each was refused
    images: list[bool] = []
    coloured = 0
    with open_archive(out, header, overwrite=overwrite) as archive, stop_on_signals() as stop:
        if scans.volumes:
            print(VOLUME_HEADING)
        pending = []
        for entry in scans.volumes:
            record = run.recorded(entry, archive)
            if record is None:
                pending.append(entry)
            else:
                volumes.append(False)
                print(volume_line(record))
        rules = {"allow_gaps": True, "max_tilt_deg": SCORING_TILT_DEG}
        for entry, volume in in_progress(read_ahead(pending, **rules), len(pending), "volumes"):
            record = run.record_volume(entry, volume, archive)
            volumes.append("code" in record)
            print(volume_line(record), flush=True)
            if stop.signal is not None:
                break
        if scans.images and stop.signal is None:
            print(IMAGE_HEADING)
        for image in in_progress(scans.images, len(scans.images), "slices"):
            if stop.signal is not None:
                break
            record = run.record_image(image, archive)
            if record is None:
                coloured += 1
                continue
            images.append("code" in record)
            print(image_line(record), flush=True)
        write_tables(archive, formats)
    print(_summary(volumes, images, scans.volumes.skipped, coloured, out))
    if stop.signal is not None:
        print("stopped early: the same command goes on from here", file=sys.stderr)
        return stop.exit_code
    return 1 if any(volumes) or any(images) else 0


def _summary(
    volumes: Sequence[bool],
    images: Sequence[bool],
    skipped: Mapping[str, int],
    coloured: int,
    out: Path,
) -> str:
    """Return the last line: what was scored, refused and passed over."""
    scored = [f"{len(volumes) - sum(volumes)} volumes"] if volumes or not images else []
    scored += [f"{len(images) - sum(images)} slices"] if images else []
    over = [f"{count} {why}" for why, count in skipped.items()]
    over += [f"{coloured} coloured pictures"] if coloured else []
    passed = f" ({', '.join(over)} passed over)" if over else ""
    num_refused = sum(volumes) + sum(images)
    return f"{' and '.join(scored)} scored, {num_refused} refused{passed}; see {out}"
