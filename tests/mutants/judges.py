"""Which tests judge which module: those that state what the module is for, and are quick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

JUDGES: Mapping[str, tuple[str, ...]] = {
    "ubr_pretrain/losses.py": ("ubr_pretrain/test_losses.py",),
    "ubr_pretrain/groups.py": ("ubr_pretrain/test_groups.py",),
    "ubr_pretrain/resident_slices.py": ("ubr_pretrain/test_resident_slices.py",),
    "ubr_pretrain/training_batches.py": ("ubr_pretrain/test_resident_slices.py",),
    "ubr_pretrain/crop.py": ("ubr_pretrain/test_crop.py",),
    "ubr_pretrain/layouts.py": ("converters/test_layouts.py",),
    "converters/layouts.py": ("converters/test_layouts.py",),
    "lesion_det/detector_layouts.py": ("lesion_det/test_detector_layouts.py",),
    "lesion_det/topk_recall.py": ("lesion_det/test_ranking_metrics.py",),
    "lesion_det/froc.py": ("lesion_det/test_ranking_metrics.py",),
    "lesion_det/coco_ap.py": ("lesion_det/test_coco_ap.py",),
    "lesion_det/metrics.py": (
        "lesion_det/test_metrics.py::test_record_survives_json_with_every_number",
        "lesion_det/test_metrics.py::test_E01_undefined_is_null_and_never_minus_one",
        "lesion_det/test_metrics.py::test_E05_missing_images_are_listed_or_refused",
        "lesion_det/test_metrics.py::test_E06_one_patient_has_no_interval_and_says_so",
        "lesion_det/test_metrics.py::test_every_number_of_the_record_is_that_of_a_plain_loop",
        "lesion_det/test_metrics.py::test_counts_hash_and_groups_are_those_of_the_input",
        "lesion_det/test_metrics.py::test_table_is_in_per_cent_with_groups_and_their_intervals",
    ),
    "lesion_det/overlap.py": ("lesion_det/test_ranking_metrics.py",),
    "lesion_det/boxes.py": ("lesion_det/test_boxes.py",),
    "lesion_det/curve_hits.py": ("lesion_det/test_curve_hits.py",),
    "ubr_pretrain/rank_correlation.py": ("ubr_pretrain/test_rank_correlation.py",),
    "ubr_pretrain/monotone_fit.py": ("ubr_pretrain/test_monotone_fit.py",),
    "ubr_pretrain/orientation.py": ("ubr_pretrain/test_orientation.py",),
    "ubr_pretrain/slice_positions.py": ("ubr_pretrain/test_slice_positions.py",),
    "ubr_pretrain/hounsfield.py": ("ubr_pretrain/test_hounsfield.py",),
}


def judges_of(module: str) -> list[str]:
    """Return the test files of a module, relative to the project."""
    return [str(Path("tests") / name) for name in JUDGES[module]]
