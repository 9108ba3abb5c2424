"""The help of every command as its parser prints it; run by itself, writes the stored texts.

python -m tests.help_texts        # make help-texts
"""

import contextlib
import importlib
import io
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

COMMANDS: dict[str, str] = {
    script: target.replace(".commands:", ".")
    for script, target in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "scripts"
    ].items()
}
"""The module of every script."""


def stored_help(module: str) -> Path:
    package, _, name = module.rpartition(".")
    return ROOT / package / "help" / f"{name}.txt"


def printed_help(module: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
    return printed.getvalue()


def main() -> None:
    for module in COMMANDS.values():
        file = stored_help(module)
        file.parent.mkdir(exist_ok=True)
        file.write_text(printed_help(module), "utf-8")
    for file in set(ROOT.glob("*/help/*.txt")) - set(map(stored_help, COMMANDS.values())):
        file.unlink()


if __name__ == "__main__":
    main()
