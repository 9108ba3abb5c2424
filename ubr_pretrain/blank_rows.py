"""What a disk may do to pixels that no checksum guards: rows of one value in the midst of a body.

A lost block of a DICOM slice or of a plain NIfTI reads as zeros, and a download that was broken off
may end in them. Patients have no such rows: what surrounds a body is seen beside it, and a masked
scan has its empty rows above, below and beside the body. Less than a row goes unseen; for certainty
there is ``--checksums``.

Shapes:
    z, y: slices, rows of a volume.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from ubr_pretrain.ct import Volume

DAMAGED = "damaged?"
"""How a note on such rows begins."""

SAMPLES = 16
"""So many voxels of a row are looked at first; noise makes them differ."""

TISSUE_HU = -500
MIN_TISSUE_SHARE = 0.25
"""Of the rows on both sides: a masked chin or shoulder ends in rows of less."""

MAX_SLICES = 3
"""A chin and a chest have rows of air between them, over more slices than this."""


def looks_damaged(volume: Volume) -> str | None:
    """Return None, or where rows of one value lie inside the body or a slice of one value."""
    hu = volume.hu
    thin = hu[:, :, :: max(1, hu.shape[2] // SAMPLES)]
    blank = np.asarray((thin == thin[:, :, :1]).all(axis=2))
    if not blank.any():
        return None
    tissue = (thin > TISSUE_HU).mean(axis=2) >= MIN_TISSUE_SHARE
    inside = _between(blank, tissue, hu.shape[1]) | _between(blank.T, tissue.T, MAX_SLICES).T
    whole = np.asarray(blank.all(axis=1))[np.newaxis]
    inside |= _between(whole, ~whole, len(hu)).T
    for k, y in np.argwhere(inside):
        inside[k, y] = bool((hu[k, y] == hu[k, y, 0]).all())
    if not inside.any():
        return None
    k, y = np.argwhere(inside)[0]
    return (
        f"{DAMAGED} {np.count_nonzero(inside)} rows of one value inside the body, the first in "
        f"slice {k}, row {y} ({hu[k, y, 0]} HU): a lost block, or cut out?"
    )


def _between(
    blank: Bool[ndarray, "a b"], tissue: Bool[ndarray, "a b"], longest: int
) -> Bool[ndarray, "a b"]:
    """Find blanks that lie along b between tissue on both sides, at most ``longest`` in a row."""
    end = blank.shape[1]
    index = np.arange(end)
    before = np.maximum.accumulate(np.where(blank, -1, index), axis=1)
    after = np.minimum.accumulate(np.where(blank, end, index)[:, ::-1], axis=1)[:, ::-1]
    bounded = blank & (before >= 0) & (after < end) & (after - before <= longest + 1)
    sides = (before.clip(min=0), after.clip(max=end - 1))
    return bounded & np.logical_and(*(np.take_along_axis(tissue, side, 1) for side in sides))
