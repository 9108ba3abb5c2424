"""Unsupervised body part regression on CT: every axial slice gets its place in the body.

>>> from ubr_pretrain import score_volume                        # doctest: +SKIP
>>> score_volume("scan.nii.gz").to_table()                       # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ubr_pretrain.scorer import score_image, score_volume

__all__ = ["score_image", "score_volume"]


def __getattr__(name: str) -> Any:
    """Import the scorer when it is first asked for: the package itself stays light."""
    if name in __all__:
        from ubr_pretrain import scorer

        return getattr(scorer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
