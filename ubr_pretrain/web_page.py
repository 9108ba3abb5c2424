"""What every page of this project is made of: one file that loads nothing and escapes everything.

Styles and scripts are inline; the content security policy names them by their hashes and forbids
anything else, and any request.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def page_environment(package: str) -> Environment:
    """Return the templates of a package; what is put into them is escaped, what is absent fails."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp_hash"] = csp_hash
    return environment


def csp_hash(text: str) -> str:
    """Return the source expression that lets a policy allow just this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def read_inline(package: str, name: str) -> Markup:
    """Return a style or a script of a package as it stands between its tags."""
    return Markup((files(package) / name).read_text("utf-8"))
