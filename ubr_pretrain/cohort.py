"""The volumes below some paths: one entry each, named and given a subject without reading voxels.

Nothing is lost in silence: what looks like a volume and cannot be read becomes an entry that says
so when it is read, foreign files are counted, and DICOM series that are no CT slices (scout views,
dose reports, MR) are passed over with their reason.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)

from ubr_pretrain.bounded_file import MAX_TABLE_BYTES, require_at_most
from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.dicom_header import DicomHeader, read_dicom_header
from ubr_pretrain.dicom_series import split_phases
from ubr_pretrain.dicom_slices import ct_slices
from ubr_pretrain.folder_walk import Listing, Say, SearchLine, listings
from ubr_pretrain.png_slices import slice_number
from ubr_pretrain.reading_rules import ReadingRules
from ubr_pretrain.stored_file import StoredFile, describe
from ubr_pretrain.time_limit import each_in_time
from ubr_pretrain.volume_entry import VolumeEntry
from ubr_pretrain.volume_file import HEADER_READERS

VOLUME_SUFFIX = re.compile(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|dcm)$", re.IGNORECASE)
DEEPLESION_FOLDER = re.compile(r"(\d+)_\d+_\d+")
DICOMDIR = "DICOMDIR"
MAX_NAME = 80
PASSED_OVER = ("E-MODALITY", "E-LOCALIZER", "E-RGB", "E-NOPIXELS")
CT_CLASSES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_Seen = tuple[str, bytes, DicomHeader | VolumeRefused | None]
"""What a file is, its first bytes, and of a DICOM file the header or what is wrong with it."""


class Cohort(list[VolumeEntry]):
    """The entries, in the order in which they were found.

    Attributes:
        skipped: how many files are no volumes, by reason.
        passed_over: DICOM series that are no CT slices.
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped: Counter[str] = Counter()
        self.passed_over: list[VolumeRefused] = []


def find_volumes(paths: Iterable[Path | str], say: Say = lambda _: None) -> Cohort:
    """Find every volume in files, folders and DICOM trees, each real file once.

    A subject is the ``subject`` of the volume's row in a ``manifest.csv`` (columns ``volume``,
    ``subject``) beside it, a hash of the PatientID, or the patient number of a DeepLesion folder;
    any other volume is its own subject.

    Args:
        paths: where to look.
        say: is told now and then how far a long search has got.
    """
    return find_listed_volumes(listings(Path(path) for path in paths), say)


def find_listed_volumes(listed: Iterable[Listing], say: Say = lambda _: None) -> Cohort:
    """Find every volume in folders that have been listed, as ``find_volumes`` does."""
    search = _Search(say)
    for listing in listed:
        search.take(listing)
    return search.cohort()


class _Search:
    """What has been found so far."""

    def __init__(self, say: Say) -> None:
        self.found = Cohort()
        self.line = SearchLine(say)
        self.series: dict[str, list[DicomHeader]] = defaultdict(list)
        self.patients: dict[Path, set[str]] = defaultdict(set)
        self.studies: dict[Path, set[str]] = defaultdict(set)
        self.broken_slices: dict[Path, list[VolumeRefused]] = defaultdict(list)
        self.named: set[Path] = set()
        self.manifests: dict[Path, dict[str, str]] = {}

    def take(self, listing: Listing) -> None:
        if listing.refusal is not None:
            self._add_refused(Path(listing.refusal.path), listing.refusal)
            return
        is_slice = [slice_number(file) is not None for file in listing.files]
        if any(is_slice) and not listing.named:
            folder = listing.folder.resolve().name
            patient = DEEPLESION_FOLDER.fullmatch(folder)
            subject = patient[1] if patient else ""
            self.found.append(VolumeEntry(listing.folder, _plain(folder), subject))
        files = []
        for file, sliced in zip(listing.files, is_slice, strict=True):
            if listing.named:
                self.named.add(file)
            elif sliced:
                continue
            elif file.name.startswith("."):
                self.found.skipped["hidden"] += 1
                continue
            files.append(file)
        for file, seen in zip(files, each_in_time(files, _look), strict=True):
            self._take_file(file, listing.named, seen)

    def _take_file(self, path: Path, named: bool, seen: _Seen | VolumeRefused) -> None:
        self.line.look(len(self.found))
        expected = named or VOLUME_SUFFIX.search(path.name) is not None
        if isinstance(seen, VolumeRefused):
            # what does not answer may be a slice, whatever its name
            if path.suffix.lower() == ".dcm" or (seen.code == "E-TIMEOUT" and not expected):
                self.broken_slices[path.parent].append(seen)
            elif expected:
                self._add_refused(path, seen)
            else:
                self.found.skipped[seen.code] += 1
            return
        kind, head, header = seen
        if isinstance(header, VolumeRefused):
            self.broken_slices[path.parent].append(header)
        elif header is not None:
            self._take_dicom(path, header)
        elif kind == DICOMDIR:
            self.found.skipped[DICOMDIR] += 1
        elif kind in HEADER_READERS:
            self.found.append(VolumeEntry(path, _stem(path), self._listed_subject(path)))
        elif path.suffix.lower() == ".dcm":
            fault = VolumeRefused("E-NOTDICOM", path, f"is no DICOM file: {describe(head)}")
            self.broken_slices[path.parent].append(fault)
        elif expected:
            self._add_refused(path, VolumeRefused("E-FORMAT", path, describe(head)))
        else:
            self.found.skipped["not a volume"] += 1

    def _take_dicom(self, path: Path, header: DicomHeader) -> None:
        if fault := _broken_slice(header):
            self.broken_slices[path.parent].append(fault)
            return
        if header.series_uid not in self.series:  # hold its place in the order
            self.found.append(VolumeEntry(path, "", "", series_uid=header.series_uid))
        self.series[header.series_uid].append(header)
        self.patients[path.parent].add(header.patient_id)
        if header.study_uid:
            self.studies[path.parent].add(header.study_uid)

    def _add_refused(self, path: Path, refusal: VolumeRefused) -> None:
        subject = self._listed_subject(path)
        self.found.append(VolumeEntry(path, _stem(path), subject, refusal=refusal))

    def _listed_subject(self, path: Path) -> str:
        if path.parent not in self.manifests:
            self.manifests[path.parent] = _manifest(path.parent / "manifest.csv")
        return self.manifests[path.parent].get(_file_stem(path), "")

    def cohort(self) -> Cohort:
        """Complete the DICOM series, then make names unique and subjects certain."""
        entries: list[VolumeEntry] = []
        for entry in self.found:
            entries += [entry] if entry.series_uid is None else self._series(entry.series_uid)
        with_series = {h.path.parent for headers in self.series.values() for h in headers}
        for folder, refusals in self.broken_slices.items():
            if folder in with_series:
                continue
            files = [Path(refusal.path) for refusal in refusals]
            if {r.code for r in refusals} == {"E-NOPIXELS"} and self.named.isdisjoint(files):
                self.found.passed_over.append(refusals[0])  # headers by themselves
                self.found.skipped["E-NOPIXELS"] += len(files)
                continue
            entries += [
                VolumeEntry(file, _stem(file), "", refusal=refusal)
                for file, refusal in zip(files, refusals, strict=True)
            ]
        self.found[:] = _uniquely_named(entries)
        return self.found

    def _series(self, uid: str) -> list[VolumeEntry]:
        headers = self.series[uid]
        files = tuple(header.path for header in headers)
        folder = Path(os.path.commonpath([file.parent for file in files]))
        entry = VolumeEntry(
            path=files[0] if len(files) == 1 and files[0] in self.named else folder,
            name=f"series-{_hash(uid)}",
            subject=f"patient-{_hash(headers[0].patient_id or headers[0].study_uid or uid)}",
            series_uid=uid,
            headers=tuple(headers),
        )
        folders = {file.parent for file in files}
        entry = replace(entry, notes=self._company(folders))
        broken = [self.broken_slices[f][0] for f in sorted(folders) if self.broken_slices.get(f)]
        if broken:  # it may be a slice of this series
            return [replace(entry, refusal=broken[0])]
        try:
            phases, _ = split_phases(ct_slices(headers, entry.path)[0])
        except VolumeRefused as refusal:
            if refusal.code in PASSED_OVER and self.named.isdisjoint(files) and _all_alike(headers):
                self.found.passed_over.append(refusal)
                self.found.skipped[refusal.code] += len(files)
                return []
            return [replace(entry, refusal=refusal)]
        if len(phases) == 1:
            return [entry]
        return [
            replace(entry, phase=n, name=f"{entry.name}-phase{n}")
            for n in range(1, len(phases) + 1)
        ]

    def _company(self, folders: set[Path]) -> tuple[str, ...]:
        """Note that the folders of a series hold several patients, or several studies of one."""
        for held, what in ((self.patients, "patients"), (self.studies, "studies")):
            if (count := _num_in(folders, held)) > 1:
                return (f"its folder holds {count} {what}",)
        return ()


def _num_in(folders: set[Path], held: Mapping[Path, set[str]]) -> int:
    """Count what folders hold; a flat one of thousands is not gone through for each series."""
    if len(folders) == 1:
        return len(held[next(iter(folders))])
    return len(set[str]().union(*(held[folder] for folder in folders)))


def _look(path: Path) -> _Seen:
    """Look at a file.

    Raises:
        VolumeRefused: it cannot be opened.
    """
    with StoredFile(path) as file:
        kind, gzipped, head = file.format, file.gzipped, file.head
    if kind != "dicom" or gzipped:
        return kind, head, None
    if path.name.upper() == DICOMDIR:
        return DICOMDIR, head, None
    try:
        return kind, head, read_dicom_header(path, ReadingRules().max_bytes)
    except VolumeRefused as refusal:
        return kind, head, refusal


def _broken_slice(header: DicomHeader) -> VolumeRefused | None:
    """Say why a file may be a damaged slice of any series beside it.

    A file that was cut off within its header may state half a SeriesInstanceUID, or none. Objects
    of another class (reports, raw data) have no pixels by nature.
    """
    if not header.series_uid:
        return VolumeRefused("E-HEADER", header.path, "states no SeriesInstanceUID")
    code, cause = header.pixel_fault or ("", "")
    is_ct = header.modality == "CT" and header.sop_class in CT_CLASSES
    return VolumeRefused(code, header.path, cause) if is_ct and code == "E-NOPIXELS" else None


def _all_alike(headers: Sequence[DicomHeader]) -> bool:
    """Whether the files of a series agree on what they are: an odd one in a CT is a fault of it."""
    return len({(header.modality, header.samples, header.photometric) for header in headers}) == 1


def _uniquely_named(entries: Sequence[VolumeEntry]) -> list[VolumeEntry]:
    """Tell equal names apart by a hash of the path; give a volume without a subject its own."""
    times = Counter(entry.name.casefold() for entry in entries)
    named = []
    for entry in entries:
        name = entry.name
        if times[name.casefold()] > 1 or len(name) > MAX_NAME:
            path = os.fsencode(Path.cwd() / entry.path)
            name = f"{name[:MAX_NAME]}-{hashlib.sha256(path).hexdigest()[:8]}"
        named.append(replace(entry, name=name, subject=entry.subject or name))
    return named


def _file_stem(path: Path) -> str:
    return VOLUME_SUFFIX.sub("", path.name)


def _stem(path: Path) -> str:
    """Return a file's stem with everything that is no letter, digit, dot or dash replaced."""
    return _plain(_file_stem(path))


def _plain(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", name)).lstrip(".-") or "volume"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:12]


def _manifest(path: Path) -> dict[str, str]:
    """Return subject by volume; nothing where there is no such table."""
    if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises on a path that is too long)
        return {}
    try:
        require_at_most(path, MAX_TABLE_BYTES)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            rows = csv.DictReader(file)
            return {row.get("volume") or "": (row.get("subject") or "").strip() for row in rows}
    except (OSError, ValueError, csv.Error) as error:
        # a subject in both halves of a split would be a leak
        raise VolumeRefused("E-FORMAT", path, f"is no table of subjects: {error}") from error
