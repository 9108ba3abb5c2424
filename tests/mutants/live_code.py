"""Exchanges the code of a module: of its functions while they live, or all of it on import."""

from __future__ import annotations

import gc
import importlib.machinery
from collections import deque
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tests.mutants.mutators import Mutant


def live_functions(module: Path) -> dict[str, list[FunctionType]]:
    """Return the functions of a module whose code can be exchanged, by qualified name."""
    file = str(module.resolve())
    functions: dict[str, list[FunctionType]] = {}
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__.co_filename == file:
            functions.setdefault(function.__code__.co_qualname, []).append(function)
    return {
        name: alike
        for name, alike in functions.items()
        if "<" not in name and not any(function.__code__.co_freevars for function in alike)
    }


def code_of(mutant: Mutant, module: Path) -> CodeType:
    """Return the code of the mutant's function."""
    inside = deque([compile(mutant.source, str(module.resolve()), "exec", dont_inherit=True)])
    while inside:
        code = inside.popleft()
        if code.co_qualname == mutant.function:
            return code
        inside.extend(part for part in code.co_consts if isinstance(part, CodeType))
    raise LookupError(mutant.function)


def replace_source(module: Path, source: str) -> None:
    """Let the module be imported from this source; for the rest of the process."""
    file = str(module.resolve())
    loader: Any = importlib.machinery.SourceFileLoader
    get_data, path_stats = loader.get_data, loader.path_stats

    def replaced_data(self: Any, path: str) -> bytes:
        return source.encode() if path == file else get_data(self, path)

    def no_stats(self: Any, path: str) -> Any:
        if path == file:
            raise OSError  # so that no compiled file is read or written
        return path_stats(self, path)

    loader.get_data, loader.path_stats = replaced_data, no_stats
