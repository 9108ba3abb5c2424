"""Schedules as the paper's sentence is read, and settings that are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lesion_det.det_config import Arm, DetConfig, DetOptimiser, InputConfig
from ubr_pretrain.config import config_differences, configs_folder, read_config


@pytest.mark.parametrize(
    ("arm", "step"),
    [("random", 20_000), ("ubr", 20_000), ("imagenet", 15_000), ("ubr+imagenet", 15_000)],
)
def test_per_arm_every_arm_has_its_own_step(arm: Arm, step: int) -> None:
    optimiser = DetOptimiser()
    rates = [optimiser.lr_at(i, 60_000, arm) for i in (1, step, step + 1, 2 * step + 1)]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-4, 2e-5])


def test_staged_all_arms_drop_together() -> None:
    optimiser = DetOptimiser(schedule="staged")
    for arm in ("random", "ubr+imagenet"):
        at = (20_000, 20_001, 40_001, 55_001, 70_000)
        rates = [optimiser.lr_at(i, 70_000, arm) for i in at]
        assert rates == pytest.approx([2e-3, 2e-4, 2e-5, 2e-6, 2e-6])


def test_drops_are_fractions_of_the_iterations_and_warm_up_is_linear() -> None:
    optimiser = DetOptimiser(lr=1.0, schedule="drops", drop_at=(0.5, 0.75), warmup=4)
    rates = [optimiser.lr_at(i, 8, "ubr") for i in range(1, 9)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_without_data_nothing_starts() -> None:
    with pytest.raises(ValidationError, match="name --coco FOLDER, or --train and --val files"):
        DetConfig()
    with pytest.raises(ValidationError, match="name --coco FOLDER"):
        DetConfig(train=(Path("a.json"),))


def test_files_that_are_named_win_over_the_folder() -> None:
    config = DetConfig(coco=Path("coco"), val=(Path("mine.json"),))
    assert config.train_files == (Path("coco/train.json"),)
    assert config.val_files == (Path("mine.json"),)


def preset(name: str, folder: Path) -> DetConfig:
    text = (configs_folder("det") / f"{name}.yaml").read_text("utf-8")
    (folder / "preset.yaml").write_text(text + "\ncoco: coco\n", encoding="utf-8")
    return read_config(folder / "preset.yaml", DetConfig)


def changed(preset: DetConfig, other: DetConfig) -> set[str]:
    lines = config_differences(preset.model_dump(mode="json"), other.model_dump(mode="json"))
    return {line.partition(":")[0] for line in lines}


def test_every_preset_is_a_configuration(tmp_path: Path) -> None:
    names = {path.stem for path in configs_folder("det").glob("*.yaml")}
    assert names >= {"paper", "staged", "release", "single", "quick", "laptop", "demo", "overfit"}
    for name in names:
        assert preset(name, tmp_path).coco == Path("coco")
        header = (configs_folder("det") / f"{name}.yaml").read_text("utf-8")
        assert header.startswith("# ")


def test_the_paper_preset_is_the_defaults_with_the_key_slice_as_it_is_stored(
    tmp_path: Path,
) -> None:
    paper = preset("paper", tmp_path)
    stored = InputConfig(slices="single", pixel_mm=None, max_px=None, clip_border=False)
    assert paper == DetConfig(coco=Path("coco"), input=stored)
    assert (paper.flip, paper.scale_jitter) == (False, 0.0)
    assert changed(paper, preset("staged", tmp_path)) == {"optimiser.schedule", "iterations"}


def test_release_reads_three_slices_at_stride_8_and_its_relatives_say_what_they_change(
    tmp_path: Path,
) -> None:
    release = preset("release", tmp_path)
    assert release.input == InputConfig()
    assert (release.detector.stride, release.batch) == (8, 2)
    assert changed(release, preset("single", tmp_path)) == {"input.slices"}
    quick = changed(release, preset("quick", tmp_path))
    assert quick == {"iterations", "workers", "precision"}


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("detector", "anchor_sizes_px", ()),
        ("detector", "anchor_sizes_px", (16, 0)),
        ("detector", "anchor_sizes_px", (-16,)),
        ("detector", "anchor_sizes_px", (10**9,)),
        ("detector", "test_top_n", (0, 0)),
        ("detector", "test_top_n", (6000, 0)),
        ("detector", "train_top_n", (-1, 2000)),
        ("detector", "train_top_n", (2**70, 2000)),
        ("detector", "max_detections", 2**70),
        ("detector", "fc_dim", 10**12),
        ("detector", "rpn_batch", 2**40),
        ("detector", "roi_batch", 2**40),
        ("input", "interval_mm", 1e308),
        ("input", "interval_mm", 5e-324),
        ("input", "pixel_mm", 5e-324),
        ("input", "max_px", 10**9),
        ("optimiser", "lr", float("inf")),
        ("optimiser", "weight_decay", float("inf")),
        ("optimiser", "max_grad_norm", float("inf")),
        ("optimiser", "drop_at", (0.5, 1.5)),
        ("optimiser", "drop_at", (float("nan"),)),
    ],
)
def test_N67_settings_that_no_detector_can_have_are_refused(
    section: str, field: str, value: object
) -> None:
    """No anchors, anchors without a size, no proposals, counts and lengths beyond reason: refused
    by the name of the field before anything is read."""
    with pytest.raises(ValidationError) as refusal:
        DetConfig.model_validate({"coco": Path("coco"), section: {field: value}})
    assert refusal.value.errors()[0]["loc"][:2] == (section, field)
