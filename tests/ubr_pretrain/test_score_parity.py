"""Parity with DeepLesion's published coordinates: which rows count, and what is found."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.ubr_pretrain.ramp_bodies import grey_hu, write_ramp_regressor
from ubr_pretrain.key_slices import read_key_slices
from ubr_pretrain.score_parity import compare_scores, main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_ramp_regressor(tmp_path_factory.mktemp("weights") / "ubr.safetensors")


def row(name, location="0.5, 0.5, 0.5", spacing="0.8, 0.8, 5", kind="4"):
    return {
        "File_name": name,
        "Normalized_lesion_location": location,
        "Spacing_mm_px_": spacing,
        "Coarse_lesion_type": kind,
    }


def write_table(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def write_slice(images, name, value_hu):
    folder, _, number = name.rpartition("_")
    (images / folder).mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64), value_hu + 32768, np.uint16)
    pixels[0, 0] += 8  # a picture of one value is refused
    cv2.imwrite(str(images / folder / number), pixels)


def write_key_slices(folder, count=12):
    """Slices whose brightness follows the published coordinate; two patients in turn."""
    rows = []
    for k in range(count):
        name = f"{k % 2 + 1:06d}_01_01_{k:03d}.png"
        coordinate = 100 - 10.0 * k
        write_slice(folder / "Images_png", name, int(grey_hu(np.array(coordinate))))
        rows.append(row(name, f"0.5, 0.5, {0.3 + 0.04 * k:.3f}"))
    return rows


def test_scores_in_the_published_order_correlate_to_one(tmp_path, checkpoint, capsys):
    table = write_table(tmp_path / "DL_info.csv", write_key_slices(tmp_path))
    out = tmp_path / "out"
    argv = [str(table), "--images", str(tmp_path / "Images_png"), "--out", str(out)]
    assert main([*argv, "--checkpoint", str(checkpoint), "--views", "2"]) == 0
    assert "Spearman 1.0000 (1.000 to 1.000)" in capsys.readouterr().out
    result = json.loads((out / "parity.json").read_text())
    assert result["hu"]["spearman"] == result["grey"]["spearman"] == pytest.approx(1.0)
    assert result["hu"]["num_patients"] == 2
    rows = pd.read_csv(out / "parity.csv")
    assert rows["location"].tolist() == pytest.approx([0.3 + 0.04 * k for k in range(12)])
    assert (rows["score_hu"].diff().dropna() > 0).all()
    assert (out / "parity.png").read_bytes()[:4] == b"\x89PNG"


def test_rows_without_location_or_pixels_are_counted_and_left_out(tmp_path, checkpoint, capsys):
    rows = write_key_slices(tmp_path, 6)
    rows += [
        row("000009_01_01_001.png", "NaN, NaN, NaN"),
        row("000009_01_01_002.png", ""),
        row("000009_01_01_003.png"),  # no pixels
        row("../../etc/passwd.png"),
        row(rows[0]["File_name"], "0.1, 0.1, 0.34", kind="5"),  # a second lesion on slice 0
    ]
    write_slice(tmp_path / "Images_png", "000008_01_01_001.png", 0)
    rows.append(row("000008_01_01_001.png", spacing="0.8, -1, 5"))
    table = write_table(tmp_path / "DL_info.csv", rows)
    slices, left_out = read_key_slices(table)
    assert left_out == {"no location": 2, "its name is not patient_study_series_slice.png": 1}
    assert slices[0].location == pytest.approx(0.32)  # the mean of 0.30 and 0.34
    assert slices[0].lesion_type == "liver"
    result = compare_scores(table, tmp_path / "Images_png", checkpoint, num_views=1)
    assert result["hu"]["num_slices"] == 6
    assert result["left_out"]["no pixels at hand"] == 1
    assert result["left_out"]["E-SPACING"] == 1
    assert "6 of 8 key slices (left out: 2 rows: no location" in capsys.readouterr().out


def test_both_ways_of_writing_a_file_name_are_one_slice(tmp_path):
    table = write_table(
        tmp_path / "t.csv", [row("000001_01_01_005.png"), row("000001_01_01/006.png")]
    )
    slices, _ = read_key_slices(table)
    assert [s.file for s in slices] == ["000001_01_01/005.png", "000001_01_01/006.png"]
    assert {s.patient for s in slices} == {"000001"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t, i: (t.unlink(), i), "no table to read"),
        (lambda t, i: (t.write_text("a,b\n1,2\n"), i), "lacks the column File_name"),
        (lambda t, i: (write_table(t, [row("000001_01_01_099.png")]), i), "needs three slices"),
        (lambda t, i: (i.rename(i.with_name("elsewhere")), i), "no such folder"),
    ],
)
def test_what_cannot_be_compared_ends_with_one_line(tmp_path, checkpoint, capsys, spoil, message):
    table = write_table(tmp_path / "DL_info.csv", write_key_slices(tmp_path, 3))
    spoil(table, tmp_path / "Images_png")
    argv = [str(table), "--images", str(tmp_path / "Images_png"), "--checkpoint", str(checkpoint)]
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.real
def test_real_key_slices_with_pixels_are_all_read(real_deeplesion):
    slices, left_out = read_key_slices(real_deeplesion / "DL_info_with_pixels.csv")
    assert len(slices) == 50
    assert not left_out
    assert all(0 < s.location < 1 for s in slices)
    hu, pixel_mm_yx = slices[0].read(real_deeplesion / "Images_png")
    assert hu.shape == (512, 512)
    assert 0.5 < pixel_mm_yx[0] < 1
