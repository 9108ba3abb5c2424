"""What the installed commands of this package call (``ubr_pretrain.commands``)."""

from __future__ import annotations

import os

from ubr_pretrain.commands import commands_of

__getattr__ = commands_of("converters", os.path.dirname(__file__))  # noqa: PTH120
