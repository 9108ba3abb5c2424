"""What the installed commands call: ``--help`` and ``--version`` at once, the rest in its module.

``[project.scripts]`` names attributes of this module and of those like it in the other packages:
``ubr_pretrain.commands:train_ubr`` is ``main`` of ``ubr_pretrain.train_ubr``. Before that module
can say a word it imports a parser and its friends, ten times what Python takes to start. So the
help of every command lies beside it, ``help/train_ubr.txt``: 78 columns wide, written by
``make help-texts``, and held by a test against what the parser prints. Any other arguments go to
the module, also where ``--help`` is among them: the parser may have a complaint before it. Nothing
is imported here that Python has not imported when it starts.
"""

from __future__ import annotations

import os
import sys

from ubr_pretrain import __version__

TYPE_CHECKING = False  # that of typing takes as long to import as all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


NOT_SAID = 120
"""Python's own exit code where the last words could not be written."""


def _leave(ended: Sequence[int]) -> None:
    """End a process in which all is done: to take torch apart takes one or two seconds more.

    Args:
        ended: the exit code; empty after an error, which Python ends in its own way.
    """
    if not ended:
        return
    from contextlib import suppress

    exit_code = ended[0]
    for stream in (sys.stderr, sys.stdout):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            exit_code = NOT_SAID
            with suppress(OSError):  # nobody hears
                os.write(2, f"{sys.argv[0]}: {error}\n".encode(errors="replace"))
    os._exit(exit_code)


def _with_streams() -> None:
    """Open what a daemon was started without: a file of results must not become its stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def commands_of(package: str, folder: str) -> Callable[[str], Callable[..., int]]:
    """Return a module's ``__getattr__``, whose attributes are the commands of a package.

    Args:
        package: its name.
        folder: where its ``help/`` is.
    """

    def command(name: str) -> Callable[..., int]:
        text = os.path.join(folder, "help", f"{name}.txt")  # noqa: PTH118  (pathlib is not there yet)
        if not os.path.isfile(text):  # noqa: PTH113
            raise AttributeError(f"{package} has no command {name!r}")

        def run(argv: Sequence[str] | None = None) -> int:
            arguments = list(sys.argv[1:] if argv is None else argv)
            if argv is None:
                _with_streams()
            if arguments in (["-h"], ["--help"], ["--version"]):
                with open(text, encoding="utf-8") as file:  # noqa: PTH123
                    said = file.read()
                if arguments == ["--version"]:
                    said = f"{said.split(maxsplit=2)[1]} {__version__}\n"  # usage: NAME ...
                sys.stdout.write(said)
                return 0
            from pathlib import Path

            try:
                Path.cwd()
            except OSError as error:  # torch would blame a library of its own
                this = Path(sys.argv[0]).name
                print(f"{this}: the current folder is gone ({error.strerror})", file=sys.stderr)
                return 2
            from atexit import register
            from importlib import import_module

            ended: list[int] = []
            if argv is None:
                register(_leave, ended)  # the first of all, so it comes last
            try:
                ended.append(import_module(f"{package}.{name}").main(argv))
            except SystemExit as end:
                if isinstance(end.code, int):
                    ended.append(end.code)
                raise
            return ended[0]

        return run

    return command


__getattr__ = commands_of("ubr_pretrain", os.path.dirname(__file__))  # noqa: PTH120
