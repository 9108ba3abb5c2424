"""How fast scans become scores: against decoding alone and the bare network alone, in one run.

    python benchmarks/scoring.py

The bound of one volume is the longer of two works, each done alone with the same threads: decoding
it, and the bare network (no window, no views) on so many slices as its views are. Two cores cannot
do both works in less than half of their sum, so a cohort is held against that too.

The works are in ``scoring_works.py``: processes that read volumes import this file again, and would
spend seconds on importing PyTorch that no user's scan costs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from table import Row, to_markdown


def rows() -> list[Row]:
    from scoring_works import network_rows, paper_rows, volume_rows, write_scans

    with tempfile.TemporaryDirectory() as name:
        write_scans(Path(name))
        return [*volume_rows(Path(name)), *network_rows(), *paper_rows()]


if __name__ == "__main__":
    print(to_markdown(rows()))
