"""Frozen, checked configuration: pydantic models <- preset YAML <- --config YAML <- flags.

Later sources win, key by key. Unknown keys, wrong types and impossible values end a command with
one line and exit code 2, before any work.
"""

from __future__ import annotations

import argparse
import errno
import re
import sys
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import docstring_parser
import yaml
from jsonargparse import ArgumentParser
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ubr_pretrain import __version__
from ubr_pretrain.plain_words import PlainHelp, plain_complaint
from ubr_pretrain.plain_yaml import read_yaml
from ubr_pretrain.printable import printable

MAX_MESSAGE = 2000
"""Characters of a complaint: the value that it is about may be a whole file."""

DISK_FAULTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What was asked is right; the disk has no room for it, or fails."""

NEGATIVE_NUMBER = re.compile(r"-(\d+|\d*\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)
"""A value and no flag; argparse knows none with an exponent."""

MAX_SEED = 2**63 - 1
"""Generators of numpy and torch take it alike."""

Model = TypeVar("Model", bound=BaseModel)


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys forbidden, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def config_parser(
    model: type[BaseModel],
    prog: str,
    description: str,
    presets: str | None = None,
    without: Collection[str] = (),
) -> ArgumentParser:
    """Return a parser with one flag a field (``--optim.lr``), ``--config`` and ``--preset``.

    Args:
        model: the configuration model; its defaults are the parser's.
        prog: the command as users type it.
        description: first lines of ``--help``.
        presets: folder of YAML files below ``configs/`` that ``--preset NAME`` picks from.
        without: fields that have no flag.
    """
    parser = CommandParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of these keys.")
    if presets is not None:
        names = ", ".join(sorted(p.stem for p in configs_folder(presets).glob("*.yaml")))
        parser.add_argument("--preset", type=str, help=f"One of: {names}.")
    described = {
        p.arg_name: p.description for p in docstring_parser.parse(model.__doc__ or "").params
    }
    lists = {
        name: item for name, field in model.model_fields.items() if (item := _item_type(field))
    }
    for name, item in lists.items():  # "--data A B" instead of "--data [A,B]"
        field = model.model_fields[name]
        parser.add_argument(
            f"--{name}", nargs="*", type=item, default=list(field.default), help=described.get(name)
        )
    parser.add_class_arguments(model, None, skip={*lists, *without})
    for key, group in (parser.groups or {}).items():
        if (group.title or "").startswith("see ``"):
            group.title = _summary(model, key)
    return parser


def _item_type(field: FieldInfo) -> Any:
    """Return T where a field is a ``tuple[T, ...]``, else None."""
    item = get_args(field.annotation)
    return item[0] if get_origin(field.annotation) is tuple and item[1:] == (...,) else None


def _summary(model: Any, key: str) -> str:
    """Return the first line about the model that is below ``model`` at ``key``, "a.b"."""
    for name in key.split("."):
        model = model.model_fields[name].annotation
    return (model.__doc__ or "").partition("\n")[0].removesuffix(".").replace("``", "")


class CommandParser(ArgumentParser):
    """A parser whose help is in plain words, and whose complaint is one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": PlainHelp, "version": __version__, **kwargs})
        self._negative_number_matcher = NEGATIVE_NUMBER

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with one line, without the usage."""
        del ex
        text = " ".join(re.sub(r"For further information visit \S+", "", message).split())
        refuse(self.prog, plain_complaint(text, self._actions))


def parse_config(
    parser: ArgumentParser,
    model: type[Model],
    argv: Sequence[str] | None,
    presets: str | None = None,
) -> tuple[Model, argparse.Namespace]:
    """Parse flags into ``model``; return it with the arguments that are not the model's.

    Exits with code 2 and one line on standard error where the input is refused.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    arguments = _files_first(parser, arguments, presets)
    _require_plain_files(parser, model, arguments)
    spelled = [_known_spelling(parser, argument) for argument in arguments]
    parsed = parser.parse_args(spelled).clone(with_meta=False)
    values = parsed.as_dict()
    rest = argparse.Namespace(
        **{key: values.pop(key) for key in list(values) if key not in model.model_fields}
    )
    try:
        return model.model_validate(values), rest
    except ValidationError as error:
        refuse(parser.prog, first_problem(error))


def _known_spelling(parser: ArgumentParser, argument: str) -> str:
    """Return ``--imagenet-weights`` as the field's own ``--imagenet_weights``."""
    flag, equals, value = argument.partition("=")
    spelled = "--" + flag.removeprefix("--").replace("-", "_")
    known = parser._option_string_actions
    if flag.startswith("--") and flag not in known and spelled in known:
        return spelled + equals + value
    return argument


def _files_first(
    parser: ArgumentParser, arguments: Sequence[str], presets: str | None
) -> list[str]:
    """Put the file of ``--preset NAME`` and those of ``--config`` in front: flags override them."""
    names: list[str] = []
    files: list[str] = []
    others: list[str] = []
    left = deque(arguments)
    while left:
        flag, equals, value = left[0].partition("=")
        if flag != "--config" and (flag != "--preset" or presets is None):
            others.append(left.popleft())
            continue
        left.popleft()
        given = value if equals or not left else left.popleft()
        if flag == "--config" and (not given or given.startswith("--")):
            refuse(parser.prog, "--config: expected a YAML file")
        if left and not left[0].startswith("-"):  # else it would join the flag before
            refuse(parser.prog, f"unrecognized arguments: {left[0]} (after {flag} {given})")
        (names if flag == "--preset" else files).append(given)
    if names and presets is not None:
        folder = configs_folder(presets)
        known = sorted(path.stem for path in folder.glob("*.yaml"))
        if names[1:]:
            given = f"given {len(names)} times ({', '.join(names)}); name one"
            refuse(parser.prog, f"--preset: {given}")
        if names[0] not in known:
            said = f"--preset {names[0]}".rstrip()
            refuse(parser.prog, f"{said}: not one of {', '.join(known)}")
        files.insert(0, str(folder / f"{names[0]}.yaml"))
    return [*(f"--config={file}" for file in files), *others]


def _require_plain_files(
    parser: ArgumentParser, model: type[BaseModel], arguments: Sequence[str]
) -> None:
    """Refuse a file of keys that the parser should not even open."""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        name, file = flag.removeprefix("--"), Path(value if equals else after)
        of = model if flag == "--config" else _model_at(model, name)
        if flag.startswith("--") and of is not None and is_file(file):
            try:
                keys = read_yaml(file)
                said = isinstance(keys, dict) and any(value is not None for value in keys.values())
                if not (said and all(isinstance(key, str) for key in keys)):
                    raise ValueError(f"{file}: holds {_said(keys)}, not keys with values")
                _require_shapes(keys, of, f"{file}: ")
            except (OSError, ValueError) as error:
                refuse(parser.prog, f"{flag} {error}")


def _require_shapes(keys: Mapping[str, Any], model: type[BaseModel], where: str) -> None:
    """Refuse a word in the place of a list or of keys: the parser would open a file of that name.

    Raises:
        ValueError: naming the key.
    """
    for name, value in keys.items():
        if name in ("config", "preset"):
            raise ValueError(f"{where}{name}: no key of a file; give the flag --{name}")
        inner, field = _model_at(model, name), model.model_fields.get(name)
        if isinstance(value, dict) and inner is not None:
            _require_shapes(value, inner, f"{where}{name}.")
        elif inner is not None and isinstance(value, str) and is_file(Path(value)):
            raise ValueError(f"{where}{name}: expected keys with values, got {_said(value)}")
        elif field is not None and _item_type(field) and not isinstance(value, list):
            raise ValueError(f"{where}{name}: expected a list, [A, B], got {_said(value)}")


def _model_at(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the model that is below ``model`` at "a" or "a.b", None where there is none."""
    found: type[BaseModel] | None = model
    for part in name.split("."):
        field = found.model_fields.get(part) if found is not None else None
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
        found = next(models, None)
    return found


def is_file(path: Path) -> bool:
    """Say whether a word is the name of a file; any word may be asked about."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _said(value: Any) -> str:
    return "nothing" if value is None else printable(repr(value), 80)


def configs_folder(name: str) -> Path:
    """Return the folder of presets, in a checkout or in an installed package."""
    here = Path(__file__).resolve().parent
    for root in (here / "configs", here.parent / "configs"):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"the presets configs/{name} were not installed with the package")


def read_config(path: Path, model: type[Model]) -> Model:
    """Read one YAML file into ``model``.

    Raises:
        ValueError: not YAML, larger than ``MAX_YAML_BYTES``, or refused by the model.
    """
    try:
        return model.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}") from error


def config_to_yaml(config: BaseModel) -> str:
    """Return the YAML from which ``read_config`` makes an equal configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def config_differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line ``key: a -> b`` for every leaf in which two dumped configurations differ."""
    lines: list[str] = []
    for key in dict.fromkeys([*a, *b]):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += config_differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left} -> {right}")
    return lines


def first_problem(error: ValidationError) -> str:
    """Return the first complaint of pydantic as ``key.path: rule (got value)``.

    A rule about several keys names them itself: the value would be the whole configuration.
    """
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}: {message} (got {problem['input']!r})"[:500]


def refuse(prog: str, message: str) -> NoReturn:
    """End a command with one line on standard error and exit code 2."""
    print(f"{prog}: error: {printable(message, MAX_MESSAGE)}", file=sys.stderr)
    raise SystemExit(2)


def give_up(prog: str, error: ValueError | OSError) -> NoReturn:
    """End a command with one line that names the file: exit code 1 where a disk is full, else 2."""
    if not (isinstance(error, OSError) and error.errno in DISK_FAULTS):
        refuse(prog, str(error))
    words = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    print(f"{prog}: error: {printable(words, MAX_MESSAGE)}", file=sys.stderr)
    raise SystemExit(1)
