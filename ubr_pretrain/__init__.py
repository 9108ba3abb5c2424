"""Unsupervised body part regression on CT: every axial slice gets its place in the body.

>>> from ubr_pretrain import score_volume                        # doctest: +SKIP
>>> score_volume("scan.nii.gz").to_table()                       # doctest: +SKIP
"""

__version__ = "0.1.0"
__all__ = ["score_image", "score_volume"]

TYPE_CHECKING = False  # that of typing would be most of what it takes to answer --help
if TYPE_CHECKING:
    from typing import Any

    from ubr_pretrain.scorer import score_image, score_volume


def __getattr__(name: str) -> "Any":
    """Import the scorer when it is first asked for: the package itself stays light."""
    if name in __all__:
        from ubr_pretrain import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
