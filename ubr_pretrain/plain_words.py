"""A command's help and complaints in plain words: no types of Python, no names inside the code."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from jsonargparse import DefaultHelpFormatter

NAMES = {int: "whole number", float: "number", bool: "true or false", NoneType: "null"} | {
    str: "text",
    Path: "path",
}
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}

OR_NULL = " or null"

NO_DEFAULTS: Sequence[Any] = (None, [], (), argparse.SUPPRESS)
"""Not worth a word where the help of a flag is printed."""

REPHRASED = {
    "``": "",
    "None:": "null:",  # as it is typed
    "Path to a configuration file.": "YAML file of the keys below.",
}


def type_words(hint: Any) -> str:
    """Return what a flag takes, such as "whole number >= 1 or null"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = type_words(args[0])
        bounds = " and ".join(
            f"{sign} {_as_typed(getattr(rule, name))}"
            for rule in args[1:]
            for name, sign in BOUNDS.items()
            if hasattr(rule, name)
        )
        null = OR_NULL if words.endswith(OR_NULL) else ""
        return f"{words.removesuffix(OR_NULL)} {bounds}".rstrip() + null
    if origin is Literal:
        return _either([str(value) for value in args])
    if origin in (Union, UnionType):
        takes = [type_words(each) for each in args]
        if any(words.endswith(OR_NULL) for words in takes):
            takes.remove(NAMES[NoneType])
        return _either(takes)
    if origin is tuple:
        items = ["..." if item is ... else type_words(item) for item in args]
        return f"[{','.join(items)}]"
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))


def _either(words: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def plain_complaint(message: str, actions: Sequence[argparse.Action]) -> str:
    """Return a parser's complaint as ``--flag VALUE: expected ...``; other words stay as they are.

    Args:
        message: of jsonargparse, on one line.
        actions: the parser's.
    """
    if required := re.fullmatch(r"the following arguments are required: (.*)", message):
        options = {a.dest: a.option_strings[0] for a in actions if a.option_strings}
        names = [options.get(name, name) for name in required[1].split(", ")]
        return f"the following arguments are required: {', '.join(names)}"
    unknown = re.fullmatch(
        r"(?:Group '(?P<group>.*)' does not accept option|Option) '(?P<key>[^']*)'.*", message
    )
    if unknown is not None:
        return f"{'.'.join(filter(None, unknown.group('group', 'key')))}: no such key"
    about = re.fullmatch(r'Parser key "([^"]+)"(?: element \d+)?: (.*)', message)
    if about is None:
        return message
    key, rule = about.groups()
    flag = next((a.option_strings[0] for a in actions if a.dest == key and a.option_strings), key)
    hint = next((_type_of(action) for action in actions if action.dest == key), None)
    value = re.search(r"(?:Got|Given) value: (.*?)(?: - Expected .*)?$", rule)
    if value is None or hint is None:
        return f"{flag}: {rule.partition(' - Parser key ')[0]}"
    words = type_words(hint)
    article = "a " if words.startswith(("whole number", "number", "path")) else ""
    return f"{flag} {value[1]}: expected {article}{words}"


def _type_of(action: argparse.Action) -> Any:
    """Return the type of a flag, None where it has none."""
    return getattr(action, "_typehint", None) or action.type


HELP_COLUMNS = 78
"""Fits the terminals that there are; the same everywhere, as help is stored (``commands.py``)."""


class PlainHelp(DefaultHelpFormatter):
    """Help in which a flag's type and default read as what one types."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=HELP_COLUMNS)  # type: ignore[no-untyped-call]

    def _get_help_string(self, action: argparse.Action) -> str:
        hint, words = _type_of(action), action.help or ""
        notes = ["required"] if action.required and action.option_strings else []
        if hint is not None and not (get_origin(hint) is Literal or hint is bool):  # in the usage
            takes = type_words(hint)
            notes += [] if {"text", "path"} & set(takes.split()) else [takes]
        if action.default not in NO_DEFAULTS and "default" not in words:
            notes.append(f"default: {_as_typed(action.default)}")
        if action.nargs == 0 or getattr(action, "_jsonargparse_preexpanded_help", False):
            notes = []  # it takes nothing, or has its notes already
        text = " ".join(filter(None, [words, f"({'; '.join(notes)})" if notes else ""]))
        for ours, theirs in REPHRASED.items():
            text = text.replace(ours, theirs)
        return text


def _as_typed(value: Any) -> str:
    """Return a default as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{','.join(map(_as_typed, value))}]"
    if isinstance(value, list):
        return " ".join(map(_as_typed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
