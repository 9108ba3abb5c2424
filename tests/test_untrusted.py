"""What comes from outside is data: no file is ever executed."""

import ast
import csv
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from converters.export_backbone import main as export_backbone
from lesion_det.compare_inits import main as compare_inits
from lesion_det.convert_detector import main as convert_detector
from lesion_det.evaluate_det import main as evaluate_det
from lesion_det.train_det import main as train_det
from tests.command_line import refused_line
from tests.converters.conftest import SOUND_ROW
from tests.lesion_det.toy_slices import write_toy_deeplesion
from tests.source_code import calls, dotted, nodes, says
from tests.ubr_pretrain.tiny_cohort import write_tiny_cohort
from ubr_pretrain.calibrate_scorer import main as calibrate_scorer
from ubr_pretrain.crop_volumes import main as crop_volumes
from ubr_pretrain.measure_scorer import main as measure_scorer
from ubr_pretrain.pretrained import main as ship_scorer
from ubr_pretrain.score_parity import main as score_parity
from ubr_pretrain.score_volumes import main as score_volumes
from ubr_pretrain.train_ubr import main as train_ubr

# Rows that one process of a Ray cluster hands to another of the same run; no file is behind them.
OWN_ROWS = {("ubr_pretrain/ray_scoring.py", "pickle.loads")}

UNPICKLERS = {"shelve", "marshal", "dill", "joblib", "cloudpickle"}
EXECUTING = {
    *("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "pd.read_pickle"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load"),
}


def executes(node: ast.Call | ast.Import | ast.ImportFrom) -> str:
    """Return the name of a call or import by which a file could be executed, "" of any other."""
    if not isinstance(node, ast.Call):
        names = {getattr(node, "module", None), *(alias.name for alias in node.names)}
        return " ".join(map(str, names & UNPICKLERS))
    name = dotted(node.func)
    mapped = any(key.arg == "mmap_mode" for key in node.keywords)
    unsafe = (
        name in EXECUTING
        or (name == "torch.load" and not says(node, "weights_only", True))
        or (name == "np.load" and not (mapped or says(node, "allow_pickle", False)))
        or says(node, "shell", True)
        or says(node, "allow_pickle", True)
        or name.endswith((".extractall", ".extract"))
    )
    return name if unsafe else ""


def test_C01_no_line_of_the_project_executes_a_file() -> None:
    """No eval, exec, shell, unsafe YAML or unpickling in any source; torch.load is weights_only."""
    found = {(file, name) for file, node in calls() if (name := executes(node))}
    assert found == OWN_ROWS
    planted = (
        "eval(x); torch.load(f); torch.load(f, weights_only=False); np.load(f); yaml.load(t)\n"
        "subprocess.run(c, shell=True); pickle.load(f); import joblib; z.extractall(p)"
    )
    assert all(map(executes, nodes(planted)))


class Malice:
    """Makes a folder when somebody unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes, slices, and one malicious file under the name of every kind of weights."""
    top = tmp_path_factory.mktemp("untrusted")
    write_tiny_cohort(top / "ct", 2, max_slices=25)
    write_toy_deeplesion(top / "lesions", {"train": 2, "val": 1})
    content = {"model": {"conv1_1.weight": Malice(top / "ran")}, "state_dict": Malice(top / "ran")}
    for suffix in ("safetensors", "pth"):
        torch.save(content, top / f"evil.{suffix}")
    (top / "evil.pkl").write_bytes(pickle.dumps(content, 4))
    (top / "bare.pth").write_bytes(pickle.dumps(Malice(top / "ran")))
    (top / "hub").mkdir()
    torch.save(content, top / "hub" / "model.pth")
    (top / "config.yaml").write_text("MODEL: {}\n")
    (top / "marks.csv").write_text("volume,landmark,index_sup_to_inf\np0,iliac_crest,1\n")
    (top / "classes.csv").write_text("volume,index_sup_to_inf,class\np0,1,chest\n")
    with (top / "DL_info.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, SOUND_ROW)
        writer.writeheader()
        writer.writerow(SOUND_ROW)
    return top


UBR = "--data ct --store OUT/store --width 0.1 --input.size_px 32 --g 2 --m 2 --iterations 1"
DET = "--coco lesions/coco --images lesions/Images_png --width 0.1 --iterations 1 --device cpu"
IMAGENET = "--external_input imagenet"
COMMANDS: list[tuple[Callable[[Sequence[str]], int], str]] = [
    (train_ubr, f"{UBR} --out OUT --start evil.safetensors"),
    (train_ubr, f"{UBR} --out OUT --init imagenet --imagenet-weights evil.pth"),
    *((train_ubr, f"{UBR} --out OUT --init external --external {file} {IMAGENET}")
      for file in ("evil.pth", "bare.pth", "evil.pkl", "evil.safetensors", "hub")),
    (score_volumes, "ct --out OUT --checkpoint evil.safetensors"),
    (crop_volumes, "ct --out OUT --zone chest --checkpoint evil.safetensors"),
    (calibrate_scorer, "evil.safetensors --volumes ct --landmarks marks.csv --out OUT/c.json"),
    (measure_scorer, "evil.safetensors --volumes ct --landmarks marks.csv --classes classes.csv"),
    (score_parity, "DL_info.csv --images lesions/Images_png --checkpoint evil.safetensors"),
    (ship_scorer, "evil.safetensors --calibration marks.csv --folder OUT"),
    (export_backbone, "evil.safetensors OUT/a.safetensors"),
    (train_det, f"{DET} --out OUT --init ubr --ubr evil.safetensors"),
    (train_det, f"{DET} --out OUT --init imagenet --imagenet-weights evil.pth"),
    *((train_det, f"{DET} --out OUT --init external --external {file} {IMAGENET}")
      for file in ("evil.pth", "evil.pkl", "hub")),
    (evaluate_det, "--checkpoint evil.safetensors --coco lesions/coco/val.json "
                   "--images lesions/Images_png --out OUT"),
    (convert_detector, "evil.safetensors OUT"),
    (convert_detector, "evil.pth OUT/a.safetensors --config config.yaml"),
    (compare_inits, f"{DET} --out OUT --inits ubr --seeds 0 --ubr evil.safetensors"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("main", "words"), COMMANDS, ids=[f"{m.__module__}-{i}" for i, (m, _) in enumerate(COMMANDS)]
)
def test_C01_every_command_that_takes_weights_refuses_a_malicious_file(
    main: Callable[[Sequence[str]], int],
    words: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2 and one line that names the file; what the pickle would do has not been done."""
    monkeypatch.chdir(place)
    line = refused_line(main, capsys, words.replace("OUT", str(tmp_path / "out")).split())
    assert any(name in line for name in ("evil.", "bare.pth", "hub"))
    assert not (place / "ran").exists()
