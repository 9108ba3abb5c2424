"""Flags, files and presets become one checked model; anything else ends in one line."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from ubr_pretrain.config import (
    Config,
    config_differences,
    config_parser,
    config_to_yaml,
    configs_folder,
    parse_config,
    read_config,
)
from ubr_pretrain.plain_yaml import MAX_YAML_BYTES
from ubr_pretrain.ubr_config import UbrConfig


class Inner(Config):
    """How it learns."""

    lr: float = Field(0.1, gt=0)


class Outer(Config):
    """Everything.

    Attributes:
        inner: see ``Inner``.
        where: a folder; None: nowhere.
        depth: of it.
    """

    inner: Inner = Inner()
    names: tuple[str, ...] = ()
    seed: int = 0
    where: Path | None = None
    depth: int | None = Field(4, ge=1, lt=9)
    how: Literal["well", "badly"] | None = None
    pair: tuple[float, float] = (1.5, 2.0)
    loud: bool = False


def parse(*argv: str) -> Outer:
    return parse_config(config_parser(Outer, "tool.py", "A tool."), Outer, argv)[0]


def test_flags_win_over_the_file_key_by_key(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("inner: {lr: 0.5}\nseed: 3\n")
    config = parse("--config", str(file), "--seed", "9", "--names", "a", "b")
    assert config == Outer(inner=Inner(lr=0.5), seed=9, names=("a", "b"))


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--inner.lr", "-1"], "--inner.lr -1: expected a number > 0"),
        (["--inner.l", "1"], "inner.l"),
        (["--seed", "x"], "--seed x: expected a whole number"),
        (["--depth", "1.5"], "--depth 1.5: expected a whole number >= 1 and < 9 or null"),
        (["--how", "fast"], "--how fast: expected well or badly or null"),
        (["--pair", "[1,a]"], "--pair a: expected [number,number]"),
        (["--where", "3", "--loud", "maybe"], "--loud maybe: expected true or false"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(argv, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error


def test_unknown_keys_of_a_file_are_refused(tmp_path, capsys):
    file = tmp_path / "c.yaml"
    file.write_text("inner: {learning_rate: 1}\n")
    with pytest.raises(SystemExit):
        parse("--config", str(file))
    assert capsys.readouterr().err == "tool.py: error: inner.learning_rate: no such key\n"


def test_help_says_what_a_flag_takes_as_one_types_it(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--where WHERE a folder; null: nowhere. --",
        "of it. (whole number >= 1 and < 9 or null; default: 4)",
        "(number > 0; default: 0.1)",
        "([number,number]; default: [1.5,2])",
        "--loud {true,false} (default: false)",
        "How it learns: --inner CONFIG YAML file of the keys below.",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["--preset", "demo", "--preset", "paper"], "--preset: given 2 times (demo, paper)"),
        (["--preset", "demo", "--seed", "1", "--preset=demo"], "given 2 times (demo, demo)"),
        (["--preset", "../ubr/demo"], "--preset ../ubr/demo: not one of demo, "),
        (["--preset"], "--preset: not one of demo, "),
    ],
)
def test_one_preset_is_named_or_none(given, complaint, capsys):
    parser = config_parser(UbrConfig, "train_ubr.py", "x", "ubr")
    with pytest.raises(SystemExit) as stop:
        parse_config(parser, UbrConfig, given, presets="ubr")
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert complaint in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("preset", sorted(p.stem for p in configs_folder("ubr").glob("*.yaml")))
def test_every_ubr_preset_is_valid_and_survives_yaml(preset, tmp_path):
    parser = config_parser(UbrConfig, "train_ubr.py", "x", "ubr")
    config, _ = parse_config(parser, UbrConfig, ["--preset", preset], presets="ubr")
    (tmp_path / "c.yaml").write_text(config_to_yaml(config))
    assert read_config(tmp_path / "c.yaml", UbrConfig) == config


def test_the_defaults_are_the_paper_preset():
    parser = config_parser(UbrConfig, "train_ubr.py", "x", "ubr")
    config, _ = parse_config(parser, UbrConfig, ["--preset", "paper"], presets="ubr")
    assert config == UbrConfig()


def test_S12_yaml_that_names_python_objects_is_refused(tmp_path):
    """Refused as no YAML; nothing is called."""
    file = tmp_path / "c.yaml"
    file.write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ValueError, match="not YAML"):
        read_config(file, Outer)


def test_S13_a_huge_configuration_is_refused_unread(tmp_path):
    """Above 1 MB it is refused unread."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"#" * (MAX_YAML_BYTES + 1))
    with pytest.raises(ValueError, match="larger than"):
        read_config(file, Outer)


def test_differences_are_named_leaf_by_leaf():
    a, b = Outer().model_dump(), Outer(inner=Inner(lr=2.0), seed=1).model_dump()
    assert config_differences(a, b) == ["inner.lr: 0.1 -> 2.0", "seed: 0 -> 1"]


def refused(capsys, *argv: str) -> str:
    """Return the line that ends a command."""
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("tool.py: error: ")


def bomb(folder: Path) -> Path:
    """Write ten lines that stand for a thousand million values."""
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    (folder / "bomb.yaml").write_text("\n".join(lines))
    return folder / "bomb.yaml"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["config: BOMB", "inner: BOMB", "preset: BOMB", "inner.lr: BOMB"])
def test_S12_a_file_of_keys_opens_no_other_file(text, tmp_path, capsys):
    """A key that names another file is refused by name, before that file is opened; `--inner FILE`
    is read as `--config FILE` is: without aliases."""
    (tmp_path / "c.yaml").write_text(text.replace("BOMB", str(bomb(tmp_path))))
    key = text.partition(":")[0]
    assert key in refused(capsys, "--config", str(tmp_path / "c.yaml"))
    for argv in (["--inner", f"{tmp_path}/bomb.yaml"], [f"--inner={tmp_path}/bomb.yaml"]):
        assert "bomb.yaml: has an alias (*a0); write the values out" in refused(capsys, *argv)
    (tmp_path / "inner.yaml").write_text("lr: 0.7")
    assert parse("--inner", f"{tmp_path}/inner.yaml").inner.lr == 0.7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed: 1\nseed: 2\n", "seed is given twice"),
        ("inner:\n  lr: 0.5\nseed: 3\ninner:\n  lr: 0.1\n", "inner is given twice"),
        ('{"inner": {"lr": 1, "lr": 2}}', "inner: lr is given twice"),
        ("seed: 010\n", "seed: to YAML 010 is 8; write the number plainly"),
        ("inner: {lr: 1:30}\n", "inner: lr: to YAML 1:30 is 90; write"),
        ("pair: [1_0, 2]\n", "pair: to YAML 1_0 is 10; write"),
        ("preset: demo\nseed: 3\n", "preset: no key of a file; give the flag --preset"),
        ("names: phantom\n", "names: expected a list, [A, B], got 'phantom'"),
        ("names:\nseed: 3\n", "names: expected a list, [A, B], got nothing"),
        ("", "holds nothing, not keys with values"),
        ("# seed: 3\n", "holds nothing, not keys with values"),
        ("seed\n", "holds 'seed', not keys with values"),
        ("- seed\n", "holds ['seed'], not keys with values"),
        ("seed:\n", "holds {'seed': None}, not keys with values"),
        ("1: 1\n", "holds {1: 1}, not keys with values"),
    ],
)
def test_N96_a_file_of_keys_is_read_as_people_read_it_or_not(text, words, tmp_path, capsys):
    """A key given twice, a number that YAML takes for another, a preset, a word in the place of a
    list, or no keys at all: refused with the file and the key."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert refused(capsys, "--config", str(file)).startswith(f"--config {file}: {words}")


def test_N96_flags_win_over_files_wherever_they_stand(tmp_path, capsys):
    """Of files the later one wins, and a flag over all of them, before or behind."""
    for name, seed in (("a", 3), ("b", 4)):
        (tmp_path / f"{name}.yaml").write_text(f"seed: {seed}\ndepth: {seed}\n")
    a, b = (str(tmp_path / f"{name}.yaml") for name in "ab")
    assert parse("--seed", "9", "--config", a) == Outer(seed=9, depth=3)
    assert parse("--config", a, "--seed=9", f"--config={b}") == Outer(seed=9, depth=4)
    assert parse("--config", b, "--config", a) == Outer(seed=3, depth=3)
    for argv in (["--config"], ["--config", "--seed", "3"], ["--config="]):
        assert refused(capsys, *argv) == "--config: expected a YAML file"


@pytest.mark.parametrize("flags", [["--config", "FILE"], ["--config=FILE"]])
def test_N96_a_word_behind_a_file_joins_no_flag_before_it(flags, tmp_path, capsys):
    """`--names a --config FILE b` is refused: b would have become a name."""
    (tmp_path / "c.yaml").write_text("seed: 3\n")
    given = [flag.replace("FILE", f"{tmp_path}/c.yaml") for flag in flags]
    line = refused(capsys, "--names", "a", *given, "b")
    assert line == f"unrecognized arguments: b (after --config {tmp_path}/c.yaml)"
    assert parse("--names", "a", *given, "--depth", "5").names == ("a",)
    parser = config_parser(UbrConfig, "tool.py", "x", "ubr")
    with pytest.raises(SystemExit):
        parse_config(parser, UbrConfig, ["--data", "a", "--preset", "demo", "b"], presets="ubr")
    assert "unrecognized arguments: b (after --preset demo)" in capsys.readouterr().err
