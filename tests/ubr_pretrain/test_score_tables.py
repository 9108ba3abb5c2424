"""The tables, held against what pandas would write."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from ubr_pretrain.score_tables import volume_row, write_tables
from ubr_pretrain.scored_volume import record_to_table

SLICES = {
    "z_mm": [0.0, 5.0, 10.0],
    "score": [-1.25, 1e-7, 123456789.125],
    "score_alone": [0.1, 0.2, 0.30000000000000004],
    "score_sd": None,
    "coordinate": [100.0, 1.5, -3.125],
    "coordinate_sd": [1.0, 2.0, 3.0],
}
ZONES = [
    {"zone": "chest", "first_slice": 0, "last_slice": 1},
    {"zone": "abdomen", "first_slice": 2, "last_slice": 2},
]
WHOLE = {
    "volume": 'thorax, "late"',
    "subject": "a",
    "num_slices": 3,
    "spacing_mm_zyx": [5.0, 0.7, 0.7],
    "r": 1.0,
    "zones": ZONES,
    "slices": SLICES,
    "notes": ["one", "two"],
}
NO_ZONES = WHOLE | {"volume": "b", "zones": None, "slices": SLICES | {"coordinate": None}}
REFUSED = {"volume": "c", "subject": None, "code": "E-X", "cause": "no\nslices, é"}


class Archive:
    def __init__(self, out: Path, volumes: list) -> None:
        self.out, self.volumes, self.header = out, volumes, {"schema_version": 2}

    def records(self, kind: str):
        return iter(self.volumes if kind == "volumes" else [])


@pytest.mark.parametrize("volumes", [[WHOLE, NO_ZONES], [WHOLE, REFUSED], [REFUSED], []])
def test_csv_is_that_of_pandas_and_parquet_holds_the_same(volumes, tmp_path: Path) -> None:
    write_tables(Archive(tmp_path, volumes), ["csv", "parquet"])
    frames = [record_to_table(record) for record in volumes if "code" not in record]
    columns = "volume slice_index z_mm score score_alone score_sd coordinate coordinate_sd zone"
    empty = pd.DataFrame(columns=columns.split())
    expected = "".join(
        frame.to_csv(index=False, header=not number) for number, frame in enumerate(frames)
    )
    written = (tmp_path / "scores.csv").read_text("utf-8")
    assert written == (expected or empty.to_csv(index=False))
    table = parquet.read_table(tmp_path / "scores.parquet")
    assert table.column_names == columns.split()
    assert table["score"].to_pylist() == SLICES["score"] * len(frames)
    if volumes:
        rows = pd.DataFrame([volume_row(record) for record in volumes])
        rows["num_slices"] = rows["num_slices"].astype("Int64")  # whole, also where one is missing
        assert (tmp_path / "volumes.csv").read_text("utf-8") == rows.to_csv(index=False)
        counts = parquet.read_table(tmp_path / "volumes.parquet")["num_slices"]
        assert counts.type == pa.int64()
        assert counts.to_pylist() == [record.get("num_slices") for record in volumes]


def test_tables_of_a_stride_say_which_slices_were_not_read(tmp_path: Path) -> None:
    archive = Archive(tmp_path, [WHOLE | {"read_slices": [0, 2]}, NO_ZONES])
    archive.header = {"schema_version": 2, "stride_mm": 10.0}
    write_tables(archive, ["csv", "parquet"])
    marks = [False, True, False, False, False, False]
    assert pd.read_csv(tmp_path / "scores.csv")["interpolated"].tolist() == marks
    assert parquet.read_table(tmp_path / "scores.parquet")["interpolated"].to_pylist() == marks
