"""How a command refuses what it was given."""

from collections.abc import Callable, Sequence

import pytest


def refused_line(
    main: Callable[[Sequence[str]], int],
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
) -> str:
    """Return the one line with which a command refuses its arguments."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line
