"""How often anomalies are found where a fault was planted, and where there is none.

    python benchmarks/anomalies.py --subjects 40 --out runs/anomalies
    python benchmarks/anomalies.py --checkpoint best.safetensors --calibration calibration.json
        --faultless ct/ --out runs/anomalies

Synthetic subjects are scanned, scored and judged as they are (false alarms), and with every fault
of ``ubr_pretrain.planted_faults`` in turn. ``--faultless`` adds scans whose alarms are listed one
by one. It writes ``anomalies.md`` and ``anomalies.json``.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.progress import track
from scipy.stats import binomtest

from ubr_pretrain.anomalies import Anomaly, Code, find_anomalies
from ubr_pretrain.ct import Volume
from ubr_pretrain.network_input import resample_slices
from ubr_pretrain.phantom import REGIONS, render, sample_phantom, sample_scan, sample_subject
from ubr_pretrain.planted_faults import FAULTS, NEW, PlantedFault, plant
from ubr_pretrain.runtime import to_json
from ubr_pretrain.scorer import Scorer, read_scorer
from ubr_pretrain.scoring import score_slices
from ubr_pretrain.volumes import SCORING_TILT_DEG, find_volumes
from ubr_pretrain.whole_file import write_atomically

OVERLAP = 0.5
"""An anomaly is in its place where intersection over union with the planted slices is as much."""

THIGHS_MM = (960.0, 1105.0)
"""Of the reference body: no landmark that is calibrated lies there."""

Scores = Callable[[Volume], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the scorer of the package")
    parser.add_argument("--calibration", type=Path, help="of that checkpoint")
    parser.add_argument("--subjects", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--max_slices", type=int, default=90)
    parser.add_argument("--faultless", nargs="*", type=Path, default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()
    scorer = read_scorer(a.checkpoint, a.calibration, device=a.device, num_views=1)
    if scorer.calibration is None:
        parser.error("--checkpoint needs its --calibration")
    result = measure(scorer, a.subjects, a.seed, a.max_slices)
    result["faultless_volumes"] = dict(judge_volumes(scorer, a.faultless))
    with write_atomically(a.out / "anomalies.json", "w") as file:
        file.write(to_json(result, indent=1) + "\n")
    text = to_markdown(result)
    with write_atomically(a.out / "anomalies.md", "w") as file:
        file.write(text)
    print(text)


def measure(scorer: Scorer, num_subjects: int, seed: int, max_slices: int) -> dict[str, Any]:
    """Judge synthetic scans without and with every fault; return counts and rates."""

    def judge(volume: Volume, scores: np.ndarray) -> tuple[Anomaly, ...]:
        step_mm = volume.spacing_mm_zyx[0]
        return find_anomalies(scores, volume.z_mm, step_mm, scorer.calibration)

    alarms: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    trials: dict[str, list[dict[str, Any]]] = {name: [] for name in (*FAULTS, "thighs_alone")}
    for number in track(range(num_subjects), "subjects"):
        rng = np.random.default_rng((seed, number))
        region = REGIONS[number % len(REGIONS)]
        volume = sample_phantom(rng, region=region, max_slices=max_slices).volume
        volume = replace(volume, source=f"subject {number}, {region}")
        scores = _score(scorer, volume)
        found = judge(volume, scores)
        alarms.update({anomaly.code for anomaly in found} or {"none"})
        listed += [{"scan": volume.source, "message": f"{a.code}: {a.message}"} for a in found]
        for name in FAULTS:
            try:
                planted = plant(volume, name, rng)
            except ValueError:  # too short to hold this fault
                continue
            known = scores[planted.source]
            new = planted.source == NEW
            if new.any():
                known = known.copy() if len(known) == len(new) else np.zeros(len(new))
                known[new] = _score(scorer, planted.volume, new)
            trials[name].append(_trial(planted, judge(planted.volume, known)))
        thighs = _thighs(rng)
        trials["thighs_alone"].append(
            _trial(thighs, judge(thighs.volume, _score(scorer, thighs.volume)))
        )
    return {
        "seed": seed,
        "faultless_scans": num_subjects,
        "false_alarms": {
            code: _rate(alarms[code], num_subjects) for code in (*get_args(Code), "none")
        },
        "false_alarms_listed": listed,
        "faults": {name: _summary(rows) for name, rows in trials.items() if rows},
    }


def judge_volumes(scorer: Scorer, paths: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of every volume on disk and its alarms."""
    for entry in find_volumes(paths) if paths else ():
        volume = entry.read(allow_gaps=True, max_tilt_deg=SCORING_TILT_DEG)
        anomalies = scorer.score_volume(volume, entry.name).anomalies
        yield entry.name, [f"{a.code}: {a.message}" for a in anomalies]


def _score(scorer: Scorer, volume: Volume, which: np.ndarray | None = None) -> np.ndarray:
    hu = volume.hu if which is None else volume.hu[which]
    spec = scorer.trained.input_spec
    slices = resample_slices(hu, volume.spacing_mm_zyx[1:], spec)
    return score_slices(scorer.trained.regressor, slices, spec, scorer.device)


def _thighs(rng: np.random.Generator) -> PlantedFault:
    subject = sample_subject(rng)
    scan = sample_scan(subject, rng, region="whole")
    step_mm = min(scan.step_mm, 5.0)
    scan = replace(scan, z_mm=np.arange(*THIGHS_MM, step_mm), step_mm=step_mm)
    volume = render(subject, scan).volume
    last = volume.num_slices - 1
    return PlantedFault("thighs_alone", "OUT_OF_RANGE", volume, 0, last, np.full(last + 1, NEW))


def _trial(planted: PlantedFault, found: tuple[Anomaly, ...]) -> dict[str, Any]:
    right = [anomaly for anomaly in found if anomaly.code == planted.code]
    truth = set(range(planted.first_slice, planted.last_slice + 1))
    overlap = 0.0
    for anomaly in right:
        slices = set(range(anomaly.first_slice, anomaly.last_slice + 1))
        overlap = max(overlap, len(slices & truth) / len(slices | truth))
    return {
        "code": planted.code,
        "detected": bool(right),
        "in_place": overlap >= OVERLAP,
        "any": bool(found),
        "codes": sorted({anomaly.code for anomaly in found}),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    others = Counter(code for row in rows for code in row["codes"] if code != row["code"])
    return {
        "code": rows[0]["code"],
        **{
            key: _rate(sum(row[key] for row in rows), len(rows))
            for key in ("detected", "in_place", "any")
        },
        "other_codes": dict(others.most_common()),
    }


def _rate(count: int, total: int) -> dict[str, Any]:
    interval = binomtest(count, total).proportion_ci(method="wilson")
    return {
        "count": count,
        "of": total,
        "wilson_95": [round(float(interval.low), 3), round(float(interval.high), 3)],
    }


def to_markdown(result: dict[str, Any]) -> str:
    """Return the tables of ``measure`` as markdown."""

    def cell(rate: dict[str, Any]) -> str:
        low, high = rate["wilson_95"]
        return f"{rate['count']} / {rate['of']} ({low:.2f} to {high:.2f})"

    lines = [
        f"Faultless synthetic scans: {result['faultless_scans']} (seed {result['seed']}).",
        "",
        "| false alarm | scans (95 % Wilson interval) |",
        "|---|---|",
        *(f"| {code} | {cell(rate)} |" for code, rate in result["false_alarms"].items()),
        "",
        "| planted fault | code | detected | in its place | anything raised | other codes |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["faults"].items():
        others = ", ".join(f"{code} {count}" for code, count in row["other_codes"].items()) or "-"
        rates = " | ".join(cell(row[key]) for key in ("detected", "in_place", "any"))
        lines.append(f"| {name} | {row['code']} | {rates} | {others} |")
    if result["faultless_volumes"]:
        lines += ["", "| volume on disk | raised |", "|---|---|"]
        for name, alarms in result["faultless_volumes"].items():
            lines.append(f"| {name} | {'; '.join(alarms) or '-'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
