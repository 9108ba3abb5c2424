"""A checkpoint gives back what it was given, or is refused."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ubr_pretrain.checkpoint import (
    CheckpointRefused,
    checkpoint_kind,
    read_checkpoint,
    write_checkpoint,
)
from ubr_pretrain.whole_file import write_atomically, write_together

STATE = {
    "iteration": 7,
    "best": 0.25,
    "config": {"name": "sgd", "nested": [1, None, True, {"deep": "text"}]},
    "optimiser": {
        "state": {0: {"step": torch.tensor(3.0)}, 1: {"m": torch.arange(6.0).view(2, 3)}}
    },
    "empty": {},
}


def test_a_nested_state_comes_back_equal(tmp_path):
    file = tmp_path / "a.safetensors"
    write_checkpoint(file, STATE, "ubr")
    again = read_checkpoint(file, "ubr")
    assert again["optimiser"]["state"][1]["m"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert list(again["optimiser"]["state"]) == [0, 1]  # integer keys stay integers
    assert again["config"] == STATE["config"]
    assert again["iteration"] == 7
    assert again["empty"] == {}
    assert checkpoint_kind(file) == "ubr"


def test_the_file_is_one_of_safetensors_and_the_same_bytes_every_time(tmp_path):
    """What shares memory, is a part, lies transposed or is empty is written as what it holds."""
    whole = torch.arange(12.0).reshape(3, 4)
    views = {"whole": whole, "again": whole, "part": whole[1:], "turned": whole.t()}
    views |= {"wide": whole[:1].expand(5, -1), "none": torch.zeros(0), "one": torch.tensor(3.0)}
    kinds = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64]
    kinds += [torch.int32, torch.int16, torch.uint8, torch.bool]
    tensors = views | {str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in kinds}
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path in files:
        write_checkpoint(path, tensors, "ubr")
    found = load_file(files[0])
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_an_optimisers_state_survives(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    write_checkpoint(tmp_path / "a", {"o": optimiser.state_dict()}, "ubr")
    fresh = torch.optim.AdamW(layer.parameters(), lr=0.5)
    fresh.load_state_dict(read_checkpoint(tmp_path / "a", "ubr")["o"])
    assert fresh.param_groups[0]["lr"] == 0.1
    for key, value in optimiser.state_dict()["state"][0].items():
        assert torch.equal(torch.as_tensor(fresh.state_dict()["state"][0][key]), value)


@given(st.data())
def test_C03_any_flipped_byte_is_refused(tmp_path_factory, data):
    """Any flipped bit is E-CKPT-HASH, or lies where nothing is read."""
    file = tmp_path_factory.mktemp("flip") / "a.safetensors"
    write_checkpoint(file, STATE, "ubr")
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    try:
        again = read_checkpoint(file, "ubr")
    except CheckpointRefused:
        return
    # A flip in the header's padding changes nothing that is read.
    assert again["optimiser"]["state"][1]["m"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert again["config"] == STATE["config"]


@given(st.data())
def test_C02_a_file_cut_anywhere_is_refused(tmp_path_factory, data):
    """Cut at any byte: refused with the file's name."""
    file = tmp_path_factory.mktemp("cut") / "a.safetensors"
    write_checkpoint(file, STATE, "ubr")
    content = file.read_bytes()
    file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointRefused, match=r"a\.safetensors"):
        read_checkpoint(file, "ubr")


def test_C01_a_pickle_is_refused_and_not_run(tmp_path):
    """A pickle under the name of a checkpoint is refused and not run."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    torch.save(Evil(), tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointRefused, match="evil"):
        read_checkpoint(tmp_path / "evil.safetensors", "ubr")
    assert not marker.exists()


def test_another_kind_and_a_missing_file_are_named(tmp_path):
    write_checkpoint(tmp_path / "a", STATE, "detector")
    with pytest.raises(CheckpointRefused, match="is a 'detector' file, expected 'ubr'"):
        read_checkpoint(tmp_path / "a", "ubr")
    with pytest.raises(CheckpointRefused, match="no such file"):
        read_checkpoint(tmp_path / "b", "ubr")


def test_S07_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    """A checkpoint with a NaN among its plain values is refused before anything is written."""
    with pytest.raises(TypeError, match=r"a\.0: a object"):
        write_checkpoint(tmp_path / "a", {"a": [object()]}, "ubr")
    with pytest.raises(ValueError, match="JSON"):
        write_checkpoint(tmp_path / "a", {"a": math.nan}, "ubr")
    assert list(tmp_path.iterdir()) == []


def test_T01_a_kill_while_writing_leaves_the_old_file_whole(tmp_path):
    """SIGKILL in the middle of a write: the checkpoint before it is whole."""
    file = tmp_path / "a.safetensors"
    write_checkpoint(file, STATE, "ubr")
    code = (
        "import os, sys, pathlib\n"
        "from ubr_pretrain.checkpoint import write_atomically\n"
        "with write_atomically(pathlib.Path(sys.argv[1])) as f:\n"
        "    f.write(b'half'); f.flush(); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=False)
    assert done.returncode == -9
    assert read_checkpoint(file, "ubr")["iteration"] == 7


def test_S06_files_that_appear_together_move_as_they_were_written(tmp_path, monkeypatch):
    """What describes the others is written last and moves last; where one cannot move none does,
    and the error names the place that it was to have."""
    moved, replace = [], Path.replace

    def seen(source, target):
        moved.append(Path(target).name)
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", seen)
    for name in ("b", "c", "a"):
        (tmp_path / name).write_text("old")
    with write_together(tmp_path) as drafts:
        for name in ("b", "c", "a"):
            (drafts / name).write_text("new")
    assert moved == ["b", "c", "a"]
    assert {file.read_text() for file in tmp_path.iterdir()} == {"new"}
    (tmp_path / "c").unlink()
    (tmp_path / "c").mkdir()
    with pytest.raises(IsADirectoryError) as error, write_together(tmp_path) as drafts:  # noqa: PT012
        for name in ("b", "c"):
            (drafts / name).write_text("newer")
    assert (error.value.filename, error.value.filename2) == (str(tmp_path / "c"), None)
    assert (tmp_path / "b").read_text() == "new"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c"]


def test_S06_an_error_while_writing_leaves_nothing_behind(tmp_path):
    """An error in the middle of a write leaves no file."""
    with pytest.raises(RuntimeError), write_atomically(tmp_path / "a") as file:  # noqa: PT012
        file.write(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
