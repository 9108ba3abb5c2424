"""What every page of this project is made of: one file that loads nothing and escapes everything.

Styles and scripts are inline; the content security policy names them by their hashes and forbids
anything else, and any request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_UNSEEN = {
    code: f"\\u{code:04x}"
    for code in (
        *(code for code in range(32) if chr(code) not in "\t\n"),
        *range(0x7F, 0xA0),  # control characters
        *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # direction
    )
}


def page_environment(package: str) -> Environment:
    """Return the templates of a package; what is put into them is escaped, what is absent fails."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters["csp_hash"] = csp_hash
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True}
    environment.policies["json.dumps_function"] = _data_of_a_script
    return environment


def visible(value: Any) -> Any:
    """Return what is put into a page, with characters written out that turn or hide its neighbours.

    Markup of our own is left as it is.
    """
    return value.translate(_UNSEEN) if type(value) is str else value


def _data_of_a_script(data: Any, **how: Any) -> str:
    """Return JSON whose texts, keys too, are :func:`visible`: a script shows them as they are."""
    return json.dumps(_visible_within(data), allow_nan=False, **how)


def _visible_within(data: Any) -> Any:
    if isinstance(data, dict):
        return {visible(key): _visible_within(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_visible_within(value) for value in data]
    return visible(data)


def csp_hash(text: str) -> str:
    """Return the source expression that lets a policy allow just this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def read_inline(package: str, name: str) -> Markup:
    """Return a style or a script of a package as it stands between its tags."""
    return Markup((files(package) / name).read_text("utf-8"))
