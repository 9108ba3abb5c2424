"""`python -m tests.fuzz`: mutated inputs of every format, without end or as many as are asked for.

python -m tests.fuzz --inputs 100000 --out runs/fuzz
python -m tests.fuzz --formats nii dicom-rle --inputs 5000 --seed 7
python -m tests.fuzz --replay nrrd --seed 0 --index 760 --out somewhere
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.campaign import AT_ONCE, Campaign, files_of, run, shares
from tests.fuzz.originals import VOLUMES
from tests.fuzz.record_originals import ORIGINALS


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 where no fault was found, else 1."""
    kinds = [*VOLUMES, *ORIGINALS]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--formats", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--replay", choices=kinds, help="write the files of one input, and end")
    parser.add_argument("--index", type=int, default=0, help="of the input to replay")
    args = parser.parse_args(argv)
    if args.replay:
        for name, content in files_of(args.replay, args.seed, args.index).items():
            (args.out / name).parent.mkdir(parents=True, exist_ok=True)
            (args.out / name).write_bytes(content)
            print(args.out / name)
        return 0
    campaign = fuzz(args.formats, args.inputs, args.seed, args.out)
    print(campaign.table())
    return 1 if campaign.num_faults else 0


def fuzz(kinds: Sequence[str], inputs: int, seed: int, out: Path) -> Campaign:
    """Try inputs of all kinds in turn, so that a run that is stopped has seen all of them."""
    campaign, left = Campaign(out, seed), shares(kinds, inputs)
    total, began = sum(left.values()), time.monotonic()
    next_of = dict.fromkeys(kinds, 0)
    while any(left.values()):
        for kind in kinds:
            count = min(AT_ONCE, left[kind])
            if not count:
                continue
            run(campaign, kind, next_of[kind], count)
            next_of[kind] += count
            left[kind] -= count
            campaign.write()
            _tell(campaign, kind, total, time.monotonic() - began)
    return campaign


def _tell(campaign: Campaign, kind: str, total: int, passed_s: float) -> None:
    done = campaign.num_inputs
    eta_s = passed_s / max(done, 1) * max(0, total - done)
    print(
        f"{done:,} of {total:,} inputs ({kind}), {campaign.num_faults} faults, "
        f"{done / passed_s:.0f} a second, {eta_s / 60:.0f} min left",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
