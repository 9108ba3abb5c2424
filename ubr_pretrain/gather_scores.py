"""Make the tables of an archive from the shards in which score_volumes.py --shard scored it.

Commands:
    gather_scores.py scores
    gather_scores.py scores --format parquet csv json

It reads ``OUT/shard-I-of-N/`` and writes, into ``OUT``: ``volumes/part-00000.parquet`` and on (one
row a volume, refused ones with their reason), ``scores/part-00000.parquet`` and on (one row a
slice), ``images/`` (one row a single slice), and ``gathered.json`` (weights, settings, counts); for
csv and json the tables of a single run. The parts of a folder are one table to pyarrow.dataset,
pandas and DuckDB. Nothing is written before all N shards are there and complete, scored with the
same weights and settings from the same archive. A series that lies in two units is one row, with a
note, where both are equal; others are named, and nothing is written. Running it again replaces the
tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ubr_pretrain.config import CommandParser, give_up


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and gather; return the exit code."""
    parser = CommandParser(
        prog="gather_scores.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("out", type=Path, help="--out of score_volumes.py --shard")
    add("--format", nargs="+", choices=("csv", "json", "parquet"), default=["parquet"])
    a = parser.parse_args(argv)

    from ubr_pretrain.gathered_scores import gather
    from ubr_pretrain.score_lines import count_words

    try:
        tally = gather(a.out, a.format)
    except (ValueError, OSError) as error:
        give_up(parser.prog, error)
    left = {"copies in other units": tally.copies, "no longer in the archive": tally.gone}
    over = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    passed = f" ({over} left out)" if over else ""
    print(f"{count_words(tally.scored, tally.refused)}{passed}; see {a.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
