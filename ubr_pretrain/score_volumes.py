"""Say where in the body every axial slice of CT scans lies, offline and without a GPU.

Commands:
    score_volumes.py scan.nii.gz
    score_volumes.py ARCHIVE/ dicom_tree/ slice.png --out scores --format csv json parquet
    score_volumes.py scan.nii.gz --checkpoint runs/ubr/checkpoints/best.safetensors
    score_volumes.py ARCHIVE/ --out scores --shard $SLURM_ARRAY_TASK_ID/100
    score_volumes.py ARCHIVE/ --out scores --engine ray --ray-address auto

It prints a line a volume and writes into ``--out``: ``scores.csv`` (one row a slice: volume,
slice_index counted from the most superior slice, z_mm below it, score, body coordinate, zone),
``volumes.csv`` (one row a volume), ``images.csv`` (one row a single slice), ``scores.json``
(everything, as ``schemas/scores.schema.json`` describes it), ``scores.jsonl`` (the same, written as
it comes), ``NAME.png`` (the curve beside coronal and sagittal views) and, with ``--pages``,
``NAME.html``. The same command goes on where a run was stopped; what is recorded is not scored
again. A scan that cannot be read is named and the rest goes on; the exit code is then 1.

``--shard I/N`` scores the I-th of N parts of an archive (1/N to N/N, on any machines, in any order)
into ``--out/shard-I-of-N``, one folder or file of the archive after the other, whatever its size;
``gather_scores.py`` makes the tables of all parts. ``--engine ray`` scores with all machines of a
Ray cluster; it needs ``ct-body-part-transfer[ray]``, and the scans, the checkpoint and ``--out`` at
the same place on all of them. Both may be given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ubr_pretrain.config import CommandParser, first_problem, refuse
from ubr_pretrain.pretrained import NUM_VIEWS

BACKENDS = ("auto", "torch", "compiled", "onnxruntime", "openvino", "bf16")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags and score; return the exit code."""
    parser = CommandParser(
        prog="score_volumes.py", description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="scans, folders, DICOM trees, PNG or JPEG slices")
    add("--out", type=Path, default=Path("scores"), help="folder of the results")
    add("--format", nargs="+", choices=("csv", "json", "parquet"), help="csv json unless told")
    add("--checkpoint", type=Path, help="of train_ubr.py, instead of the weights of the package")
    add("--calibration", type=Path, help="of calibrate_scorer.py, for that checkpoint")
    add("--views", type=int, default=NUM_VIEWS, help="of a slice that are averaged; 1: no spread")
    add("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N")
    add("--backend", choices=BACKENDS, default="auto", help="that runs the network; auto: PyTorch")
    add("--threads", type=int, help="that score at the same time; with Ray: in each worker")
    add("--pictures", type=bool, default=True, help="draw NAME.png")
    add("--pages", action="store_true", help="write NAME.html, a page to look around in a scan")
    add("--window-hu", nargs=2, type=float, help="of 8-bit pictures: HU of grey 0 and 255")
    add("--pixel-mm", type=float, help="of pictures: side of a pixel, where no file states it")
    add("--with-paths", action="store_true", help="write the paths of the files into the results")
    add("--stride-mm", type=float, help="read a slice per so many mm (to 50), interpolate the rest")
    add("--checksums", type=Path, help="of sha256sum: a file that differs, or has none, is refused")
    add("--shard", type=str, help="I/N: score the I-th of N parts, from 1/N to N/N")
    add("--engine", choices=("local", "ray"), default="local", help="here, or on a Ray cluster")
    add("--ray-address", type=str, help="of the cluster; auto: the one this machine belongs to")
    add("--overwrite", action="store_true", help="delete the results in --out and start anew")
    a = parser.parse_args(argv)
    if missing := [str(p) for p in a.paths if not os.path.exists(p)]:  # noqa: PTH110  (never raises)
        refuse(parser.prog, f"{', '.join(missing[:5])}: no such file or folder")

    if a.shard is not None and a.format is not None:
        refuse(parser.prog, "--format: a shard has no tables; gather_scores.py --format makes them")
    if a.threads is not None and a.threads < 1:
        refuse(parser.prog, f"--threads {a.threads}: must be at least 1")
    if a.pages and a.stride_mm is not None:
        refuse(parser.prog, "--pages: a page shows every slice; leave out --stride-mm")
    if a.ray_address is not None and a.engine != "ray":
        refuse(parser.prog, "--ray-address: goes with --engine ray")
    if a.engine == "ray" and a.device not in ("auto", "cpu", "cuda"):
        refuse(
            parser.prog, f"--device {a.device}: workers on Ray are dealt theirs; say cuda or cpu"
        )

    from pydantic import ValidationError

    from ubr_pretrain.ct import Window
    from ubr_pretrain.images import SOFT_TISSUE
    from ubr_pretrain.ray_session import HERE
    from ubr_pretrain.reading_rules import ReadingRules, spacing_fault
    from ubr_pretrain.run_folder import fault_words
    from ubr_pretrain.scan_scoring import ScorerChoice, ScoringRules
    from ubr_pretrain.scoring_run import score_scans
    from ubr_pretrain.shards import Shard

    if a.pixel_mm is not None and (fault := spacing_fault((a.pixel_mm,))):
        refuse(parser.prog, f"--pixel-mm: {fault}")
    try:
        window = SOFT_TISSUE
        if a.window_hu is not None:
            window = Window(lower_hu=a.window_hu[0], upper_hu=a.window_hu[1])
        rules = ScoringRules(
            a.pictures,
            a.pages,
            window,
            a.pixel_mm,
            a.with_paths,
            stride_mm=a.stride_mm,
            checksums=None if a.checksums is None else a.checksums.absolute(),
        )
        ReadingRules(**rules.reading)
        return score_scans(
            a.paths,
            a.out,
            ScorerChoice(a.checkpoint, a.calibration, a.device, a.views, a.backend, a.threads),
            rules,
            formats=a.format or ("csv", "json"),
            overwrite=a.overwrite,
            shard=None if a.shard is None else Shard.parse(a.shard),
            engine=a.engine,
            ray_address=a.ray_address or HERE,
        )
    except ValidationError as error:
        refuse(parser.prog, first_problem(error))
    except ValueError as error:
        refuse(parser.prog, str(error))
    except OSError as error:
        print(f"{parser.prog}: {fault_words(error, a.out, 'scores.jsonl')}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: stopped at once; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
