"""Flags, files and presets become one checked model; anything else ends in one line."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from ubr_pretrain.config import (
    MAX_YAML_BYTES,
    Config,
    config_differences,
    config_parser,
    config_to_yaml,
    configs_folder,
    parse_config,
    read_config,
)
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
