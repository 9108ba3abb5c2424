"""What reading one slice per 2.5, 5, 10, 20 mm saves, and what it costs in accuracy.

    python benchmarks/stride.py                             # phantoms
    python benchmarks/stride.py --ct ct/ openkbp/           # your own scans as well

Every scan is scored whole and with every stride; errors are those of all its slices. Scans whose
slices lie further apart than a stride are read whole and left out of its row. Bytes are those that
an uncompressed scan or a DICOM series has to move; a compressed file is inflated whole.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from table import Row

from ubr_pretrain.ct import VolumeRefused
from ubr_pretrain.nifti_file import write_volume
from ubr_pretrain.phantom import render, sample_scan, sample_subject
from ubr_pretrain.scored_volume import ScoredVolume
from ubr_pretrain.scorer import Scorer, read_scorer
from ubr_pretrain.volumes import SCORING_TILT_DEG, VolumeEntry, find_volumes

STRIDES_MM = (2.5, 5.0, 10.0, 20.0)
NUM_PHANTOMS, MOST_OF_A_FOLDER = 4, 20


@dataclass(frozen=True)
class Loss:
    """What one stride does to one scan."""

    kind: str
    stride_mm: float
    read_share: float
    seconds: float
    whole_seconds: float
    score_error: np.ndarray
    coordinate_error_mm: np.ndarray
    same_zone: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ct", type=Path, nargs="+", default=[], help="folders of scans")
    print(to_text(measure(parser.parse_args().ct)))


def rows() -> list[Row]:
    """Return seconds a scan, strided against whole, of the phantoms."""
    losses = measure([])
    return [
        Row(
            f"one slice per {stride:g} mm, phantoms",
            float(np.mean([one.seconds for one in of_stride])),
            float(np.mean([one.whole_seconds for one in of_stride])),
            "s a scan",
            "every slice",
            None,
            f"body coordinate off by {rms([o.coordinate_error_mm for o in of_stride]):.1f} mm RMS",
        )
        for stride in STRIDES_MM
        if (of_stride := [one for one in losses if one.stride_mm == stride])
    ]


def measure(folders: Sequence[Path]) -> list[Loss]:
    """Score every scan whole and strided."""
    scorer = read_scorer(device="cpu")
    losses: list[Loss] = []
    with tempfile.TemporaryDirectory() as name:
        write_phantoms(Path(name))
        for folder in (Path(name), *folders):
            kind = "phantoms" if folder == Path(name) else folder.name
            for entry in find_volumes([folder])[:MOST_OF_A_FOLDER]:
                losses += losses_of(scorer, entry, kind)
    return losses


def write_phantoms(folder: Path) -> None:
    for number in range(NUM_PHANTOMS):
        rng = np.random.default_rng(number)
        subject = sample_subject(rng)
        scan = sample_scan(subject, rng, region="trunk", max_slices=240)
        volume = render(subject, scan, size_px=96).volume
        dz, dy, dx = volume.spacing_mm_zyx
        place = np.array([[0, 0, dx, 0], [0, dy, 0, 0], [-dz, 0, 0, 0], [0, 0, 0, 1.0]])
        write_volume(replace(volume, affine_lps=place), folder / f"{number}.nii")


def losses_of(scorer: Scorer, entry: VolumeEntry, kind: str) -> list[Loss]:
    assert scorer.calibration is not None
    try:
        whole, whole_s = timed(scorer, entry, None)
    except VolumeRefused:
        return []
    mm = scorer.calibration.mm_per_unit
    made = []
    for stride_mm in STRIDES_MM:
        sparse, seconds = timed(scorer, entry, stride_mm)
        if sparse.read_index is None:
            continue
        assert sparse.coordinate is not None
        assert whole.coordinate is not None
        made.append(
            Loss(
                kind,
                stride_mm,
                len(sparse.read_index) / len(whole.scores),
                seconds,
                whole_s,
                sparse.scores - whole.scores,
                mm * (sparse.coordinate - whole.coordinate),
                np.array(sparse.zones) == np.array(whole.zones),
            )
        )
    return made


def timed(
    scorer: Scorer, entry: VolumeEntry, stride_mm: float | None
) -> tuple[ScoredVolume, float]:
    began_s = time.perf_counter()
    volume = entry.read(allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG, stride_mm=stride_mm)
    return scorer.score_volume(volume, entry.name), time.perf_counter() - began_s


def rms(errors: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def largest(errors: Sequence[np.ndarray]) -> float:
    return float(np.abs(np.concatenate(errors)).max())


def to_text(losses: Sequence[Loss]) -> str:
    """Return one row for every kind of scan and stride."""
    lines = [
        "| scans | stride | scans thinned | slices read | seconds | score RMS, max | "
        "body coordinate RMS, max | same zone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(one.kind for one in losses):
        for stride_mm in STRIDES_MM:
            some = [o for o in losses if (o.kind, o.stride_mm) == (kind, stride_mm)]
            if not some:
                continue
            scores, places = (
                [getattr(o, name) for o in some] for name in ("score_error", "coordinate_error_mm")
            )
            share = np.mean([o.read_share for o in some])
            seconds = sum(o.seconds for o in some) / sum(o.whole_seconds for o in some)
            zone = np.mean(np.concatenate([o.same_zone for o in some]))
            lines.append(
                f"| {kind} | {stride_mm:g} mm | {len(some)} | {100 * share:.0f} % | "
                f"{100 * seconds:.0f} % | {rms(scores):.3f}, {largest(scores):.3f} | "
                f"{rms(places):.1f} mm, {largest(places):.0f} mm | {100 * zone:.1f} % |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
