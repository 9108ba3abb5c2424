"""YAML of plain values, of which nothing is guessed: small, shallow, every key once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

MAX_YAML_BYTES = 1_000_000
"""A configuration larger than this is not a configuration."""

MAX_YAML_DEPTH = 20
"""Ours nest four deep; a parser that recurses ends at a thousand."""

ODD_NUMBER = re.compile(r"[-+]?0[0-9_]|.*[:_]")
"""To YAML 010 is eight, 1:30 is ninety and 1_0 is ten."""


def read_yaml(path: Path) -> Any:
    """Return the plain values of a small YAML file.

    Aliases are not read: ten lines of them stand for a thousand million values.

    Raises:
        ValueError: not YAML, names Python objects, larger than ``MAX_YAML_BYTES``, nested deeper
            than ``MAX_YAML_DEPTH``, with an alias, a key given twice, or a number that YAML takes
            for another than people do.
    """
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"{path}: larger than {MAX_YAML_BYTES} bytes, not a configuration")
    try:
        text = path.read_text("utf-8")
        _require_small(text, path)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _require_plain(node, str(path))
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not YAML: it is no UTF-8 text") from error


def _require_small(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"{path}: has an alias (*{event.anchor}); write the values out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise ValueError(f"{path}: nested deeper than {MAX_YAML_DEPTH}, no configuration")


def _require_plain(node: yaml.Node, where: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise ValueError(f"{where}: {name} is given twice")
            seen.add(name)
            _require_plain(value, f"{where}: {name}")
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_plain(item, where)
    elif node.tag.endswith((":int", ":float")) and ODD_NUMBER.match(node.value):
        number = yaml.safe_load(node.value)
        raise ValueError(f"{where}: to YAML {node.value} is {number}; write the number plainly")
