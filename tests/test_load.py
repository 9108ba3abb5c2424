"""Thousands of volumes, files, rows and cells: what an item costs does not depend on the others.

The sizes of ``benchmarks/load.py`` in small; steps are counted, not timed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converters.coco_audit import audit_coco
from converters.conversion import ConversionConfig, convert_deeplesion
from lesion_det.coco_ap import coco_ap
from lesion_det.froc import froc
from lesion_det.ground_truth import read_ground_truth
from lesion_det.predictions import read_coco_results
from lesion_det.topk_recall import lesion_ranks, recall_curve
from tests.steps import growth
from tests.ubr_pretrain.dicom_writer import slice_dataset
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.folder_names import lesion_tables
from ubr_pretrain.scans import find_scans
from ubr_pretrain.score_archive import open_archive
from ubr_pretrain.score_tables import write_tables
from ubr_pretrain.scoring_plan import Recorded, plan_scans, plans_of_units
from ubr_pretrain.shards import find_units
from ubr_pretrain.slice_files import source_key
from ubr_pretrain.slice_store import build_slice_store
from ubr_pretrain.volumes import find_volumes

MOST = 1.15
"""For the cost of a further item, which is more than 3 where each looks at all of the others."""


def settled(folder: Path) -> Path:
    """Give a folder and those below it a time that is long ago, as an archive has."""
    for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        os.utime(each, (1e9, 1e9))
    return folder


def test_N70_a_volume_is_found_at_one_price_in_a_tree_of_any_size(
    tmp_path: Path, load_inputs
) -> None:
    """Finding a volume, or passing over a foreign file, costs the same however many there are."""

    def of_volumes(count: int) -> Callable[[], object]:
        tree = load_inputs.write_volumes(tmp_path / f"tree{count}", count)
        return lambda: find_scans([tree])

    def of_foreign_files(count: int) -> Callable[[], object]:
        folder = load_inputs.write_foreign(tmp_path / f"folder{count}", count)
        return lambda: find_scans([folder])

    assert growth(of_volumes) < MOST
    assert growth(of_foreign_files) < MOST


def test_N70_a_volume_is_stored_and_recorded_at_one_price(
    tmp_path: Path, load_inputs, monkeypatch
) -> None:
    """Storing, verifying, recording or tabling a volume costs the same however many there are."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    spec = InputSpec(size_px=32)

    def of_stored(count: int) -> Callable[[], object]:
        entries = find_volumes([load_inputs.write_volumes(tmp_path / f"data{count}", count)])

        def work() -> None:
            for _ in ("decoded", "verified"):
                stored, refused = build_slice_store(
                    tmp_path / f"store{count}", entries, spec, min_slices=4, threads=1
                )
                assert (len(stored), refused) == (count, [])

        return work

    def of_recorded(count: int) -> Callable[[], object]:
        scans = find_scans([tmp_path / f"data{count}"])

        def work() -> None:
            out = tmp_path / f"out{count}"
            with open_archive(out, {}) as archive:
                for task in plan_scans(scans, archive, Recorded(archive.held, (), out)).volumes:
                    refused = {"volume": task.name, "subject": "", "code": "E-X", "cause": "no"}
                    archive.add("volumes", task.name, task.place, task.content, refused)
            with open_archive(out, {}) as archive:
                assert len(archive) == count
                plan_scans(scans, archive, Recorded(archive.held, (), out))
                write_tables(archive, ["csv", "json"])

        return work

    assert growth(of_stored, few=20) < MOST
    assert growth(of_recorded, few=20) < MOST


def test_N71_ten_thousand_paths_in_shards_are_not_compared_with_each_other(
    tmp_path: Path, load_inputs
) -> None:
    """Thousands of paths for --shard (a pattern of the shell) are not compared pairwise."""

    def of(count: int) -> Callable[[], object]:
        tree = load_inputs.write_volumes(tmp_path / f"tree{count}", count)
        return lambda: find_units(sorted(tree.rglob("*.nii")))

    assert growth(of) < MOST


class Everything(frozenset[tuple[str, str]]):
    def __contains__(self, one: object) -> bool:
        return True


def test_N72_a_finished_shard_is_told_of_as_it_goes(
    tmp_path: Path, load_inputs, monkeypatch
) -> None:
    """A shard with thousands of recorded units goes on part by part, at one price a unit."""
    monkeypatch.setattr("ubr_pretrain.scoring_plan.SCANS_AT_ONCE", 20)

    def of(count: int) -> Callable[[], object]:
        tree = load_inputs.write_volumes(tmp_path / f"tree{count}", count)
        units = find_units(sorted(tree.rglob("*.nii")))
        done = Recorded(Everything(), (), tmp_path)
        plans = [*plans_of_units(units, done)]
        assert [len(plan.held) for plan in plans[:-1]] == [10] * (count // 10)
        return lambda: [*plans_of_units(units, done)]

    assert growth(of) < MOST


def test_N73_what_lies_beside_thousands_of_headers_is_listed_once(tmp_path: Path) -> None:
    """A folder of thousands of .mhd with their .raw is listed once, not once for each of them."""

    def of(count: int) -> Callable[[], object]:
        folder = tmp_path / f"folder{count}"
        folder.mkdir()
        for number in range(count):
            header = "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\n"
            header += f"ElementType = MET_SHORT\nElementDataFile = s{number}.raw\n"
            (folder / f"s{number}.mhd").write_text(header)
            (folder / f"s{number}.raw").write_bytes(bytes(16))
        entries = find_volumes([settled(folder)])
        assert len(entries) == count
        return lambda: [source_key(entry, InputSpec()) for entry in entries]

    assert growth(of) < MOST


def test_N73_a_file_that_comes_later_is_seen(tmp_path: Path) -> None:
    """A folder that has been listed is listed again as soon as anything in it changed."""
    (tmp_path / "DL_info.csv").touch()
    settled(tmp_path)
    images = tmp_path / "Images_png"
    assert lesion_tables(images) == lesion_tables(images) == [tmp_path / "DL_info.csv"]
    (tmp_path / "DL_info_more.csv").touch()
    (tmp_path / "DL_info.txt").touch()
    assert [table.name for table in lesion_tables(images)] == ["DL_info.csv", "DL_info_more.csv"]
    (tmp_path / "DL_info.csv").unlink()
    assert [table.name for table in lesion_tables(images)] == ["DL_info_more.csv"]
    assert lesion_tables(tmp_path / "nowhere" / "Images_png") == []


def test_N74_tables_beside_thousands_of_slice_folders_are_looked_for_once(tmp_path: Path) -> None:
    """Folders of PNG slices below thousands of patients do not each list all the patients."""

    def of(count: int) -> Callable[[], object]:
        tree = tmp_path / f"tree{count}"
        for number in range(count):
            series = tree / f"patient{number}" / "series"
            series.mkdir(parents=True)
            (series / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        settled(tree)

        def work() -> None:
            for entry in find_scans([tree]).volumes or find_volumes([tree]):
                source_key(entry, InputSpec())

        return work

    assert growth(of) < MOST


def test_N75_thousands_of_series_in_one_flat_folder(tmp_path: Path) -> None:
    """DICOM series of thousands of patients in one flat folder: no series counts all patients."""

    def of(count: int) -> Callable[[], object]:
        folder = tmp_path / f"folder{count}"
        folder.mkdir()
        for number in range(count):
            one = slice_dataset(
                np.zeros((8, 8), np.int16),
                (0, 0, 0),
                SeriesInstanceUID=f"1.2.{number}",
                PatientID=f"p{number}",
            )
            one.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)
        return lambda: find_volumes([folder])

    assert growth(of, few=30) < MOST


def test_N76_rows_of_a_table_are_converted_and_audited_at_one_price(
    tmp_path: Path, load_inputs
) -> None:
    """A row of DL_info.csv costs the same in a table of any length, in conversion and in audit."""

    def of(count: int) -> Callable[[], object]:
        folder = tmp_path / f"table{count}"
        table, images = load_inputs.write_lesion_table(folder, count)

        def work() -> None:
            convert_deeplesion(table, folder / "coco", ConversionConfig(), images)
            audit_coco(sorted((folder / "coco").glob("[tv]*.json")), table, images)

        return work

    assert growth(of) < MOST


def test_N77_images_are_judged_at_one_price(tmp_path: Path, load_inputs) -> None:
    """An image costs the same in a split of any length, in reading and in every metric."""

    def of(count: int) -> Callable[[], object]:
        truth, results = load_inputs.write_detections(tmp_path / f"data{count}", count)

        def work() -> None:
            lesions = read_ground_truth(truth)
            answers = read_coco_results(results, lesions)
            recall_curve(lesion_ranks(lesions, answers))
            froc(lesions, answers)
            coco_ap(lesions, answers)

        return work

    assert growth(of) < MOST
