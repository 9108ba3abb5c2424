"""What is not installed is not needed, until what needs it is asked for."""

import ast
import importlib.util
import re
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from converters.export_backbone import main as export_backbone
from lesion_det.compare_inits import main as compare_inits
from lesion_det.train_det import main as train_det
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort
from ubr_pretrain import stored_file
from ubr_pretrain.pretrained import WEIGHTS_FOLDER
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.train_ubr import main as train_ubr

ROOT = Path(__file__).resolve().parents[1]

OPTIONAL = {
    *("detectron2", "fvcore", "ray", "submitit", "onnx", "onnxscript", "onnxruntime", "openvino"),
    *("highdicom", "pycocotools", "nibabel", "timm", "segmentation_models_pytorch"),
    *("huggingface_hub", "playwright", "jsonschema", "pytest", "hypothesis", "beartype"),
}

ITS_OWN = {
    "detectron2": {"detector_d2", "backbone_d2", "deeplesion_d2"},
    "ray": {"ray_scoring"},
}
"""Modules that are imported once the package is known to be there."""


def imported_at_once(tree: ast.AST) -> Iterator[str]:
    """Yield the packages that a module imports when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from (name for each in node.orelse for name in imported_at_once(each))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported_at_once(node)


def test_S15_no_module_needs_what_is_optional_to_be_imported() -> None:
    """Every module is imported without Detectron2, Ray, submitit, ONNX, OpenVINO and the like."""
    files = [
        f for p in ("ubr_pretrain", "converters", "lesion_det") for f in (ROOT / p).glob("*.py")
    ]
    assert len(files) > 200
    for file in files:
        needed = OPTIONAL & {*imported_at_once(ast.parse(file.read_text("utf-8")))}
        unexpected = [name for name in needed if file.stem not in ITS_OWN.get(name, set())]
        assert not unexpected, f"{file.name} imports {unexpected}"


def test_S14_every_dependency_has_a_lowest_version() -> None:
    """Every dependency has a lowest version, and `make test-oldest` runs the tests with those."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    ours = [name for name in wanted if name.startswith(f"{project['name']}[")]
    assert len(ours) == 1
    assert [name for name in wanted if ">=" not in name] == ours


def test_S14_a_locked_installation_names_every_file_by_its_hash() -> None:
    """`make locked` installs what `.ci/locked.txt` pins, each file by its SHA-256; it holds every
    dependency, within its bounds, and no address."""
    pinned: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?! )", (ROOT / ".ci/locked.txt").read_text("utf-8").strip()):
        first, *hashes = entry.split(" \\\n")
        package = Requirement(first)
        (pin,) = package.specifier
        assert (pin.operator, package.url) == ("==", None), first
        assert hashes, first
        assert all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", line) for line in hashes), first
        pinned.setdefault(canonicalize_name(package.name), []).append(package)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = project["optional-dependencies"]
    (own,) = (name for name in groups["dev"] if name.startswith(f"{project['name']}["))
    more = [*chain(*(groups[extra] for extra in Requirement(own).extras))]
    listed = [*project["dependencies"], *groups["dev"], *more]
    for wanted in map(Requirement, [name for name in listed if name != own]):
        for package in pinned[canonicalize_name(wanted.name)]:
            (pin,) = package.specifier
            assert wanted.specifier.contains(pin.version), f"{package} against {wanted}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_tiny_cohort(data / "ct", count=1)
    write_toy_deeplesion(data / "lesions")
    (data / "w.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(64))
    return data


SCORER = str(WEIGHTS_FOLDER / "scorer.safetensors")
DETECTOR = ("--coco=lesions/coco", "--images=lesions/Images_png", "--out=out")


@pytest.mark.parametrize(
    ("package", "main", "arguments", "words"),
    [
        ("ray", score_volumes, ("ct", "--engine=ray", "--out=out"), "[ray]'"),
        ("ray", compare_inits, ("--ray=local", *DETECTOR, "--inits=random"), "[ray]'"),
        ("submitit", compare_inits, ("--slurm", *DETECTOR, "--inits=random"), "[cluster]'"),
        ("onnxruntime", score_volumes, ("ct", "--backend=onnxruntime", "--out=out"), "[onnx]'"),
        ("openvino", score_volumes, ("ct", "--backend=openvino", "--out=out"), "[openvino]'"),
        ("onnx", export_backbone, (SCORER, "out.onnx", "--layout=onnx-scorer"), "[onnx]'"),
        ("onnxscript", export_backbone, (SCORER, "out.onnx", "--layout=onnx"), "[onnx]'"),
        (
            "onnx",
            train_ubr,
            ("--init=external", "--external=w.onnx", "--data=ct", "--out=out"),
            "pip install onnx",
        ),
        ("detectron2", train_det, ("--engine=detectron2", *DETECTOR), "install it from https"),
    ],
    ids=lambda value: getattr(value, "__module__", None),
)
def test_S15_what_needs_a_package_that_is_absent_says_what_to_install(
    package: str,
    main: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    words: str,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A flag whose package is not installed: one line with its `pip install`, exit code 2."""
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(data)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert words in said.splitlines()[-1]
    assert package in said.splitlines()[-1].lower()
    assert not (data / "out.onnx").exists()


def test_S15_without_isal_gzip_is_read_by_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without isal, which has no wheel for some processors, `.nii.gz` is inflated by zlib."""
    monkeypatch.setitem(sys.modules, "isal", None)
    spec = importlib.util.spec_from_file_location("stored_file_again", stored_file.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stored_file_again", module)
    spec.loader.exec_module(module)
    assert module.inflater is zlib
