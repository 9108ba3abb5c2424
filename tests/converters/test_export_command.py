"""What the export command refuses, keeps, and prints."""

from pathlib import Path

import pytest

from converters.export_backbone import main
from converters.weight_files import export_files
from tests.command_line import refused_line
from tests.converters.checkpoints import write_regressor
from ubr_pretrain.checkpoint import file_sha256, write_checkpoint

OUTPUTS = (
    ("ubr", "trunk.safetensors"),
    ("torchvision", "trunk.safetensors"),
    ("torchvision", "trunk.pth"),
    ("detectron2", "trunk.pkl"),
    ("detectron2", "folder"),
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    return write_regressor(path, "vgg16", 0.125, batch_norm=False)


@pytest.mark.parametrize(("layout", "name"), OUTPUTS)
def test_files_that_are_there_stay_without_overwrite(
    layout, name: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / name
    *_, weights = export_files(out, layout).all()
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"mine")
    line = refused_line(main, capsys, [str(plain), str(out), "--layout", layout])
    assert "exists; use --overwrite or another name" in line
    assert weights.read_bytes() == b"mine"
    assert main([str(plain), str(out), "--layout", layout, "--overwrite"]) == 0
    assert weights.read_bytes() != b"mine"


@pytest.mark.parametrize("name", ["trunk.pth.md", "trunk.json"])
def test_a_card_or_a_description_that_is_there_stays_without_overwrite(
    name: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / name).write_text("mine")
    line = refused_line(
        main, capsys, [str(plain), str(tmp_path / "trunk.pth"), "--layout", "torchvision"]
    )
    assert f"{name}: exists" in line
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_with_anything_else_in_it_is_refused_even_with_overwrite(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "hub" / ".git").mkdir(parents=True)  # a clone of an empty repository is fine
    arguments = [str(plain), str(tmp_path / "hub"), "--layout"]
    assert main([*arguments, "torchvision"]) == 0
    line = refused_line(main, capsys, [*arguments, "detectron2", "--overwrite"])
    assert "hub: holds model.safetensors, not of this export" in line
    assert not (tmp_path / "hub" / "model.pth").exists()


def test_the_checkpoint_itself_is_never_overwritten(
    plain: Path, capsys: pytest.CaptureFixture[str]
):
    before = plain.read_bytes()
    assert "is the checkpoint itself" in refused_line(
        main, capsys, [str(plain), str(plain), "--overwrite"]
    )
    assert plain.read_bytes() == before


@pytest.mark.parametrize(
    ("layout", "name"),
    [("ubr", "a.pth"), ("torchvision", "a.pkl"), ("detectron2", "a.onnx"), ("onnx", "a.pth")],
)
def test_a_suffix_that_is_not_the_layouts_is_refused(
    layout: str, name: str, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    line = refused_line(main, capsys, [str(plain), str(tmp_path / name), "--layout", layout])
    assert f"{name}: layout {layout} is written as ." in line
    assert list(tmp_path.iterdir()) == []


def test_C02_damaged_absent_and_foreign_checkpoints_are_refused_by_name(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """export_backbone.py: exit code 2, one line, the file and why; nothing is written."""
    out = str(tmp_path / "out.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(plain.read_bytes()[:5000])
    damaged = bytearray(plain.read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(damaged)
    write_checkpoint(tmp_path / "det.safetensors", {"iteration": 3}, "detector")
    for name, said in (
        ("absent", "no such file"),
        ("cut", "not a whole safetensors file"),
        ("flipped", "E-CKPT-HASH"),
        ("det", "is a 'detector' file, expected ubr or backbone"),
    ):
        path = tmp_path / f"{name}.safetensors"
        assert f"{path}: {said}" in refused_line(main, capsys, [str(path), out])
    assert not Path(out).exists()


def test_C11_the_command_prints_what_detectron2_must_be_told(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The export prints INPUT.FORMAT, PIXEL_MEAN, PIXEL_STD and the window."""
    out = tmp_path / "a.pkl"
    assert main([str(plain), str(out), "--layout", "detectron2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "INPUT.FORMAT: RGB" in lines
    assert "MODEL.PIXEL_MEAN: [50.0, 50.0, 50.0]" in lines
    assert "MODEL.PIXEL_STD: [1.0, 1.0, 1.0]" in lines
    assert any(
        "255 * clip((HU +175) / 450, 0, 1), HU = PNG value - 32768" in line for line in lines
    )
    (row,) = [line.split() for line in lines if line.startswith("conv5_3.weight")]
    assert row[1:3] == ["backbone.conv5_3.weight", "64x64x3x3"]
    assert row[-1] == "equal"
    assert lines[-2] == f"wrote {out}  sha256 {file_sha256(out)}"
    assert lines[-1].startswith(f"next: DetectionCheckpointer(model).load({str(out)!r})")


def test_the_ubr_export_names_the_arm_it_is_for(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([str(plain), str(tmp_path / "a.safetensors")]) == 0
    assert "next: train_det.py --init ubr --ubr " in capsys.readouterr().out.splitlines()[-1]
