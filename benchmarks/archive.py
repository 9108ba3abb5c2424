"""An archive scored by Ray on this machine, against the local pipeline on the same cores and files.

    python benchmarks/archive.py

Both must give the same records. The rate is that of the stream once every worker has delivered:
what it takes to start is paid once a run, and told beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generated import write_ct
from table import Row, to_markdown

if TYPE_CHECKING:
    from ubr_pretrain.scoring_plan import Scored

VOLUMES, SLICES, SIDE_PX = 24, 120, 256
WARM_UP = 4
"""Scans after which every worker has delivered."""

Records = dict[str, dict[str, Any]]


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        data = write_ct(Path(name) / "archive", VOLUMES, SLICES, SIDE_PX)
        return [compare(data, Path(name) / "out")]


def compare(data: Path, out: Path) -> Row:
    """Score all of a folder here, on Ray, and here again."""
    from ubr_pretrain.ray_scoring import RayJob, score_on_ray
    from ubr_pretrain.ray_session import HERE, ray_session
    from ubr_pretrain.runtime import stop_on_signals
    from ubr_pretrain.scan_scoring import ScorerChoice, ScoringRules, ScoringRun, score_here
    from ubr_pretrain.scans import find_scans
    from ubr_pretrain.score_archive import open_archive
    from ubr_pretrain.scoring_plan import Recorded, plan_scans

    choice, rules = ScorerChoice(device="cpu"), ScoringRules(pictures=False)
    done = Recorded(frozenset(), (), out)
    with open_archive(out, {}) as archive:
        tasks = plan_scans(find_scans([data]), archive, done).volumes

    def locally() -> Iterator[Scored]:
        yield from score_here(ScoringRun(choice.read(), rules, out), tasks)

    def on_ray() -> Iterator[Scored]:
        job = RayJob(choice, choice.identity(choice.read()), rules, out)
        with ray_session(HERE, "--engine ray"), stop_on_signals() as stop:
            yield from score_on_ray(job, tasks, done, lambda _held, _skipped: None, stop)

    before, records, start_s = timed(locally)
    over_ray, others, ray_start_s = timed(on_ray)
    after, *_ = timed(locally)
    assert records == others, "the two ways disagree"
    return Row(
        f"--engine ray, {VOLUMES} volumes of {SLICES} x {SIDE_PX} x {SIDE_PX}",
        over_ray,
        (before + after) / 2,
        "ms a slice",
        "the local pipeline on the same cores",
        1.1,
        f"equal records; the first one came {start_s:.0f} s after the start here, "
        f"{ray_start_s:.0f} s on Ray, with the cluster itself; local before {before:.2f}, after "
        f"{after:.2f} ms a slice",
    )


def timed(stream: Callable[[], Iterator[Scored]]) -> tuple[float, Records, float]:
    """Return ms a slice behind the warm-up, the records by name, and s until the first."""
    began_s = time.perf_counter()
    records: Records = {}
    times_s: list[float] = []
    slices: list[int] = []
    for scored in stream():
        assert scored.record is not None
        times_s.append(time.perf_counter())
        slices.append(scored.record["num_slices"])
        records[scored.record["volume"]] = scored.record
    assert len(records) == VOLUMES
    seconds = times_s[-1] - times_s[WARM_UP - 1]
    return 1e3 * seconds / sum(slices[WARM_UP:]), records, times_s[0] - began_s


if __name__ == "__main__":
    print(to_markdown(rows()))
