"""One run over the scans of an archive, here or on a Ray cluster, whole or one shard of it.

    paths -> Plan (what is to be scored) -> engine: Scored, Scored, ... -> _Recorder -> journal

A scan becomes a record in ``scan_scoring``, on whatever machine; a record becomes a line of the
journal here, in one process, so that each is there exactly once.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ubr_pretrain.ray_session import HERE, ray_session
from ubr_pretrain.runtime import Stopped, StopRequest, stop_on_signals
from ubr_pretrain.scan_scoring import ScorerChoice, ScoringRules, ScoringRun, score_here
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_archive import JOURNAL, Kind, ScoreArchive, open_archive, under_name
from ubr_pretrain.score_lines import (
    IMAGE_HEADING,
    VOLUME_HEADING,
    count_words,
    image_line,
    in_progress,
    volume_details,
    volume_line,
)
from ubr_pretrain.score_tables import Format, write_tables
from ubr_pretrain.scoring_plan import Plan, Recorded, Scored, plan_scans, plans_of_units
from ubr_pretrain.shards import COMPLETE, Shard, Unit, find_units, mark_complete, names_sha256

if TYPE_CHECKING:
    from ubr_pretrain.ray_scoring import RayJob

Engine = Literal["local", "ray"]
FEW = 5
"""So many volumes are printed with every anomaly in words."""

TABLES_AT_STOP = 500
"""Of so many records the tables are written also where a signal ends the run; it takes a second."""


@dataclass
class _Recorder:
    """Takes what was scored into the journal, prints it and counts it.

    Attributes:
        archive: with the journal.
        detailed: print every anomaly in words.
        scored: how many, by kind.
        refused: how many, by kind.
        skipped: files that are no scans, by reason.
        taken: names of everything that this run has come across.
    """

    archive: ScoreArchive
    detailed: bool = False
    scored: Counter[Kind] = field(default_factory=Counter)
    refused: Counter[Kind] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    taken: set[str] = field(default_factory=set)
    _heading: str = ""

    def note(self, held: Sequence[str], skipped: Mapping[str, int]) -> None:
        """Show what is recorded already, and count what a search passed over."""
        self.skipped.update(skipped)
        for name in held:
            self.taken.add(name)
            self._show(self.archive.record(name))

    def take(self, scored: Scored) -> None:
        """Record one scan."""
        if scored.complaint is not None:
            print(scored.complaint, file=sys.stderr)
        if scored.record is None:
            self.skipped["coloured pictures"] += 1
            return
        line, record = dict(scored.line), scored.record
        name = self.archive.name_for(line["name"], line["place"], line["content"], self.taken)
        if name != line["name"]:  # two units of a shard hold one series: both stay, to be seen
            record = under_name(record, name)
        self.taken.add(name)
        self.archive.add(**{**line, "name": name, "record": record})
        self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        kind: Kind = "volumes" if "volume" in record else "images"
        (self.refused if "code" in record else self.scored)[kind] += 1
        heading = VOLUME_HEADING if kind == "volumes" else IMAGE_HEADING
        if heading != self._heading:
            print(heading)
            self._heading = heading
        if kind == "images":
            print(image_line(record), flush=True)
            return
        details = volume_details(record) if self.detailed else ()
        print(volume_line(record), *details, sep="\n", flush=True)

    def summary(self) -> str:
        """Say what was scored, refused and passed over."""
        over = ", ".join(f"{count} {why}" for why, count in self.skipped.items() if count)
        passed = f" ({over} passed over)" if over else ""
        return f"{count_words(self.scored, self.refused)}{passed}"


def score_scans(
    paths: Sequence[Path],
    out: Path,
    choice: ScorerChoice,
    rules: ScoringRules,
    *,
    formats: Sequence[Format] = ("csv", "json"),
    overwrite: bool = False,
    shard: Shard | None = None,
    engine: Engine = "local",
    ray_address: str = HERE,
) -> int:
    """Score all volumes and single slices below ``paths`` into the folder ``out``.

    Args:
        paths: files, folders, DICOM trees.
        out: folder of the results; a run that was stopped there is continued. A shard has its own
            folder below.
        choice: of the scorer.
        rules: what to do with each scan.
        formats: of the tables; a shard has none, see ``gather_scores``.
        overwrite: delete the results in ``out`` (those of this shard) first.
        shard: the part of the archive; None: all of it.
        engine: "local" (this process), or "ray".
        ray_address: of the cluster.

    Returns:
        0; 1 where something was refused; 130 or 143 where a signal ended the run early (what was
        scored is written).

    Raises:
        ValueError: nothing to score, or results of other settings in the way.
    """
    if on_ray := engine == "ray":  # a worker has a working folder of its own
        paths, choice = [path.absolute() for path in paths], choice.anywhere()
    scorer = (replace(choice, device="cpu") if on_ray else choice).read()
    identity = choice.identity(scorer)
    header = {**identity, **rules.header}
    if shard is None:
        scans = find_scans(paths, partial(print, file=sys.stderr, flush=True))
        if not scans.volumes and not scans.images:
            skipped = ", ".join(f"{count} {why}" for why, count in scans.volumes.skipped.items())
            given = " ".join(map(str, paths[:5]))
            raise ValueError(f"{given}: no CT volume or slice found ({skipped or 'nothing there'})")
    else:
        units = find_units(paths)
        out, header = shard.folder(out), {**header, "shard": str(shard)}
    with (
        ray_session(ray_address, "--engine ray") if on_ray else nullcontext(),
        open_archive(out, header, overwrite=overwrite) as archive,
        stop_on_signals() as stop,
    ):
        recorder = _Recorder(archive, detailed=shard is None and len(scans.volumes) <= FEW)
        done = Recorded(archive.held, rules.suffixes, out.absolute())
        work: Plan | list[Unit]
        with suppress(Stopped):
            if shard is None:
                with stop.at_once():
                    work = plan_scans(scans, archive, done)
            else:
                (out / COMPLETE).unlink(missing_ok=True)
                work = [unit for unit in units if shard.holds(unit)]
            if on_ray:
                from ubr_pretrain.ray_scoring import RayJob

                job = RayJob(choice, identity, rules, done.out)
                coming = _score_on_ray(job, work, done, recorder, stop)
            else:
                coming = _score_here(ScoringRun(scorer, rules, out), work, done, recorder, stop)
            with closing(coming):
                for scored in coming:
                    recorder.take(scored)
                    if stop.signal is not None:
                        break
            if shard is None and stop.signal is None:
                with stop.at_once():
                    write_tables(archive, formats)
            elif stop.signal is None:
                gone = archive.names - recorder.taken
                mark_complete(out, out / JOURNAL, names_sha256(units), gone)
        if shard is None and stop.signal is not None and len(archive) <= TABLES_AT_STOP:
            write_tables(archive, formats)
    print(recorder.summary(), f"see {out}", sep="; ")
    if stop.signal is not None:
        print("stopped early: the same command goes on from here", file=sys.stderr)
        return stop.exit_code
    return 1 if recorder.refused else 0


def _score_here(
    run: ScoringRun,
    work: Plan | Sequence[Unit],
    done: Recorded,
    recorder: _Recorder,
    stop: StopRequest,
) -> Generator[Scored, None, None]:
    # a few volumes may be the rest of many: those at which the run before this one crashed
    is_rest = not isinstance(work, Plan) or recorder.archive.goes_on
    plans = iter([work]) if isinstance(work, Plan) else plans_of_units(work, done)
    while True:
        with stop.at_once():  # a unit may hold thousands of headers
            plan = next(plans, None)
        if plan is None:
            return
        recorder.note(plan.held, plan.skipped)
        for tasks, what in ((plan.volumes, "volumes"), (plan.images, "slices")):
            coming = score_here(run, tasks, guarded=is_rest, stop=stop)
            yield from in_progress(coming, len(tasks), what)


def _score_on_ray(
    job: RayJob,
    work: Plan | Sequence[Unit],
    done: Recorded,
    recorder: _Recorder,
    stop: StopRequest,
) -> Generator[Scored, None, None]:
    from ubr_pretrain.ray_scoring import score_on_ray

    if not isinstance(work, Plan):
        yield from in_progress(score_on_ray(job, work, done, recorder.note, stop), None, "scans")
        return
    recorder.note(work.held, work.skipped)
    tasks = [*work.volumes, *work.images]
    coming = score_on_ray(job, tasks, done, recorder.note, stop)
    yield from in_progress(coming, len(tasks), "scans")
