"""From a scan to its record: one function, wherever it runs.

``ScoringRun.record_volume`` (``record_image`` for a single slice) takes a task and what its reader
returned; the local run, the workers on a cluster and every shard call it and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ubr_pretrain.checksums import hold_against
from ubr_pretrain.ct import Volume, VolumeRefused, Window, without_text
from ubr_pretrain.images import SOFT_TISSUE, CtImage, read_image
from ubr_pretrain.network_backend import Backend
from ubr_pretrain.pretrained import NUM_VIEWS
from ubr_pretrain.read_ahead import POLL_S, read_ahead
from ubr_pretrain.runtime import Stopped, StopRequest
from ubr_pretrain.scans import ImageEntry
from ubr_pretrain.scorer import Scorer, read_scorer, scorer_identity
from ubr_pretrain.scoring_plan import Scored, ScoringTask
from ubr_pretrain.time_limit import in_time
from ubr_pretrain.volumes import SCORING_TILT_DEG, VolumeEntry

AT_ONCE = 2
"""Volumes: one is drawn while the next is scored; the threads of the scorer are the same."""

GRACE_S = 1.5
"""After a signal, the volumes at hand may take so long to their end; their work is not lost."""


@dataclass(frozen=True)
class ScorerChoice:
    """Which scorer: what ``read_scorer`` takes, to be read in any process.

    Attributes:
        checkpoint: None: the weights of the package.
        calibration: None: that of the package, with its weights.
        device: "auto", "cpu", "cuda" or "cuda:N".
        num_views: of a slice that are averaged.
        backend: that runs the network.
        threads: that score at the same time; None: as many as PyTorch would use.
    """

    checkpoint: Path | None = None
    calibration: Path | None = None
    device: str = "auto"
    num_views: int = NUM_VIEWS
    backend: Backend = "auto"
    threads: int | None = None

    def read(self) -> Scorer:
        """Read the scorer onto its device."""
        return read_scorer(
            self.checkpoint,
            self.calibration,
            device=self.device,
            num_views=self.num_views,
            backend=self.backend,
            threads=self.threads,
        )

    def anywhere(self) -> ScorerChoice:
        """Return this choice for a process with another working folder."""
        given = (self.checkpoint, self.calibration)
        checkpoint, calibration = (None if path is None else path.absolute() for path in given)
        return replace(self, checkpoint=checkpoint, calibration=calibration)

    def identity(self, scorer: Scorer) -> dict[str, Any]:
        """Return, in plain values, on what its scores depend."""
        return scorer_identity(scorer, self.checkpoint, self.calibration)


@dataclass(frozen=True)
class ScoringRules:
    """What to do with a scan, whoever does it.

    Attributes:
        pictures: draw the curve of every volume.
        pages: write a page of every volume.
        window: HU that the grey values 0..255 of 8-bit pictures stand for.
        pixel_mm: side of a pixel, for pictures without their own.
        with_paths: record where files lie; a path may name a patient.
        stride_mm: read one slice per so many mm; None: every slice.
        checksums: a list of SHA-256 sums that every file is held against first.
    """

    pictures: bool = True
    pages: bool = False
    window: Window = SOFT_TISSUE
    pixel_mm: float | None = None
    with_paths: bool = False
    stride_mm: float | None = None
    checksums: Path | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """Fields of ``ReadingRules``."""
        rules: dict[str, Any] = {"allow_gaps": True, "max_tilt_deg": SCORING_TILT_DEG}
        given = {"stride_mm": self.stride_mm, "checksums": self.checksums}
        return rules | {name: value for name, value in given.items() if value is not None}

    @property
    def header(self) -> dict[str, Any]:
        """On what results depend beside the scorer, plain values."""
        window = [self.window.lower_hu, self.window.upper_hu]
        header: dict[str, Any] = {"window_hu": window, "pixel_mm": self.pixel_mm}
        header |= {"with_paths": self.with_paths}
        if self.stride_mm is not None:
            header |= {"stride_mm": self.stride_mm}
        if self.checksums is not None:
            header |= {"checksums_sha256": sha256(self.checksums.read_bytes()).hexdigest()}
        return header

    @property
    def suffixes(self) -> list[str]:
        """Of the files that are written beside the journal for a volume."""
        return [".png"] * self.pictures + [".html"] * self.pages


@dataclass(frozen=True)
class ScoringRun:
    """A scorer at work: tasks in, records out; it knows of no journal and no other task.

    Attributes:
        scorer: the regressor and its calibration.
        rules: what to do with each.
        out: folder of pictures and pages.
    """

    scorer: Scorer
    rules: ScoringRules
    out: Path

    def record_volume(self, task: ScoringTask, outcome: Volume | VolumeRefused) -> Scored:
        """Score a volume, or note why it was refused.

        Args:
            task: the volume.
            outcome: of reading it.
        """
        if isinstance(outcome, VolumeRefused):
            return self.refuse(task, outcome)
        scored = self.scorer.score_volume(outcome, task.name)
        record = {"volume": task.name, "subject": task.entry.subject} | scored.to_record()
        shown = without_text(outcome)
        if self.rules.pictures:
            from ubr_pretrain.figures import draw_scores  # matplotlib takes its time

            draw_scores(shown, scored.curve, self.out / f"{task.name}.png", task.name)
        if self.rules.pages:
            from ubr_pretrain.scan_page import write_scan_page

            write_scan_page(shown, scored, self.out / f"{task.name}.html")
        return self._scored(task, record)

    def record_image(self, task: ScoringTask) -> Scored:
        """Score a single slice, or note why it was refused."""
        entry = task.entry
        assert isinstance(entry, ImageEntry)
        try:
            image = in_time(entry.path, self._read_image, entry.path)
        except VolumeRefused as refusal:
            if refusal.code == "E-RGB" and not entry.named:
                return Scored.of(task, None, None)
            return self.refuse(task, refusal)
        scored = self.scorer.score_image(image, task.name)
        record = {"image": task.name, "subject": entry.subject or task.name} | scored.to_record()
        return self._scored(task, record)

    def _read_image(self, path: Path) -> CtImage:
        if self.rules.checksums is not None:
            hold_against(self.rules.checksums, [path])
        return read_image(path, self.rules.window, self.rules.pixel_mm)

    def refuse(self, task: ScoringTask, refusal: VolumeRefused) -> Scored:
        """Note why a scan has no scores."""
        names = {"image": task.name}
        if task.kind == "volumes":
            names = {"volume": task.name, "subject": task.entry.subject}
        reason = {"code": refusal.code, "cause": refusal.cause}
        return self._scored(task, names | reason, str(refusal))

    def _scored(
        self, task: ScoringTask, record: dict[str, Any], complaint: str | None = None
    ) -> Scored:
        if self.rules.with_paths:
            record |= {"path": str(task.entry.path)}
        return Scored.of(task, record, complaint)


def score_here(
    run: ScoringRun,
    tasks: Sequence[ScoringTask],
    *,
    guarded: bool = False,
    stop: StopRequest | None = None,
) -> Iterator[Scored]:
    """Score in this process, volumes first, while the next volume is being read.

    Args:
        run: with the scorer.
        tasks: to be done.
        guarded: see ``read_ahead``.
        stop: likewise; after a signal no other scan is begun, and one that takes long is given up.
    """
    volumes = [task for task in tasks if task.kind == "volumes"]
    entries = [task.entry for task in volumes if isinstance(task.entry, VolumeEntry)]
    coming = read_ahead(
        entries, guarded=guarded, watch=run.scorer.watch, stop=stop, **run.rules.reading
    )
    with ThreadPoolExecutor(AT_ONCE, "record") as threads:
        recorded: deque[Future[Scored]] = deque()
        try:
            for task, (_, outcome) in zip(volumes, coming, strict=stop is None):
                recorded.append(threads.submit(run.record_volume, task, outcome))
                del outcome
                if len(recorded) == AT_ONCE:
                    yield _in_time(recorded.popleft(), stop)
            while recorded:
                yield _in_time(recorded.popleft(), stop)
        except Stopped:
            try:
                while recorded and wait([recorded[0]], GRACE_S).done:
                    yield recorded.popleft().result()
            finally:
                run.scorer.network.abandon()
            return
        except GeneratorExit:  # who leaves early does not wait for what is at hand
            run.scorer.network.abandon()
            return
    for task in tasks:
        if stop is not None and stop.signal is not None:
            return
        if task.kind == "images":
            yield run.record_image(task)


def _in_time(coming: Future[Scored], stop: StopRequest | None) -> Scored:
    """Wait for a record; for ``GRACE_S`` where a signal came.

    Raises:
        Stopped: it takes longer.
    """
    told_s: float | None = None
    while not wait([coming], None if stop is None else POLL_S).done:
        if stop is not None and stop.signal is not None:
            told_s = told_s or time.monotonic()
            if time.monotonic() - told_s > GRACE_S:
                raise Stopped
    return coming.result()
