"""The benchmark of anomalies: a trial is counted rightly, and the tables say what was counted."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.ct import Volume
from ubr_pretrain.planted_faults import plant

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "anomalies.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_anomalies", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_detection_place_and_other_codes_are_counted_apart(benchmark):
    volume = Volume(np.zeros((60, 2, 2), np.int16), (5.0, 1.0, 1.0))
    planted = plant(volume, "block_reversed", np.random.default_rng(0))
    first, last = planted.first_slice, planted.last_slice
    right = Anomaly("NON_MONOTONE", first, last - 1, 40.0, "")
    elsewhere = Anomaly("NON_MONOTONE", last + 5, last + 6, 40.0, "")
    other = Anomaly("GAP", 3, 4, 40.0, "")
    rows = [
        benchmark._trial(planted, found)
        for found in ((), (other,), (elsewhere,), (right, other), (elsewhere, right))
    ]
    summary = benchmark._summary(rows)
    assert [summary[key]["count"] for key in ("detected", "in_place", "any")] == [3, 2, 4]
    assert summary["other_codes"] == {"GAP": 2}


def test_tables_hold_the_counts_with_wilson_intervals(benchmark):
    rate = benchmark._rate(8, 10)
    z, p, n = 1.959964, 0.8, 10  # Wilson 1927, by hand
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert rate["wilson_95"] == pytest.approx([centre - half, centre + half], abs=6e-4)
    text = benchmark.to_markdown(
        {
            "seed": 3,
            "faultless_scans": 10,
            "false_alarms": {"GAP": benchmark._rate(0, 10)},
            "faults": {
                "reversed": {"code": "REVERSED", "other_codes": {"GAP": 2}}
                | dict.fromkeys(("detected", "in_place", "any"), rate)
            },
            "faultless_volumes": {"a": [], "b": ["GAP: x"]},
        }
    )
    assert "| GAP | 0 / 10 (0.00 to 0.28) |" in text
    assert "| reversed | REVERSED | 8 / 10 (0.49 to 0.94) |" in text
    assert "| a | - |\n| b | GAP: x |" in text
