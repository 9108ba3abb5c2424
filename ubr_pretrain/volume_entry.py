"""One volume that has been found: where it is, whose it is, and how to read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ubr_pretrain.checksums import hold_against
from ubr_pretrain.ct import Volume, VolumeRefused
from ubr_pretrain.dicom_header import DicomHeader
from ubr_pretrain.dicom_series import read_series
from ubr_pretrain.doubts import with_doubts
from ubr_pretrain.png_slices import read_png_folder, slice_number
from ubr_pretrain.reading_rules import ReadingRules
from ubr_pretrain.slice_watch import SliceWatch
from ubr_pretrain.sparse_volume import thinned
from ubr_pretrain.volume_file import data_file_of, read_volume_file


@dataclass(frozen=True)
class VolumeEntry:
    """One volume that can be read.

    Attributes:
        path: file, PNG folder, or the folder that holds a DICOM series.
        name: unique in its cohort, fit for a file name, free of what DICOM says of the patient.
        subject: whose volume it is; two volumes of one subject must not be split.
        series_uid: of a DICOM series.
        phase: from 1, where one DICOM series holds several phases of the same slices.
        headers: of the files of a DICOM series; a file that changed since is refused.
        notes: added to the notes of the volume.
        refusal: why it cannot be read, where that is known already.
    """

    path: Path
    name: str
    subject: str
    series_uid: str | None = None
    phase: int | None = None
    headers: tuple[DicomHeader, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: VolumeRefused | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of a DICOM series."""
        return tuple(header.path for header in self.headers)

    def read(self, *, watch: SliceWatch | None = None, **rules: Any) -> Volume:
        """Read the volume.

        Args:
            watch: is told of slices as they come, where a format lets it.
            rules: the fields of `ReadingRules`.

        Raises:
            VolumeRefused: it cannot be read without the risk of a wrong result.
        """
        checked = ReadingRules(**rules)
        if self.refusal is not None:
            raise self.refusal.with_traceback(None)
        try:
            if checked.checksums is not None:
                hold_against(checked.checksums, self._sources())
            volume = self._read(checked, watch)
        except OSError as error:  # a share that went away, a file that was deleted
            raise VolumeRefused("E-MISSING", self.path, f"cannot be read: {error}") from error
        except MemoryError as error:
            raise VolumeRefused("E-MEMORY", self.path, "does not fit into memory") from error
        volume = with_doubts(replace(volume, notes=(*self.notes, *volume.notes)))
        return thinned(volume, checked.stride_mm)

    def _sources(self) -> list[Path]:
        """The files that the voxels come from."""
        if self.headers:
            return [*self.files]
        if self.path.is_dir():
            return sorted(file for file in self.path.iterdir() if slice_number(file) is not None)
        data_file = data_file_of(self.path)
        return [self.path] if data_file is None else [self.path, data_file]

    def _read(self, rules: ReadingRules, watch: SliceWatch | None) -> Volume:
        if self.headers:
            return read_series(self.headers, rules, self.path, self.phase, watch)
        if self.path.is_dir():
            return read_png_folder(self.path, rules)
        return read_volume_file(self.path, rules, watch)
