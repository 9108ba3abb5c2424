"""How far into a trunk a transfer reaches: conv1 to some block, the blocks behind it drawn.

VGG-16 has two or three layers a block (``conv3_1`` .. ``conv3_3``), AlexNet one (``conv3``). Free
of torch, so that configurations can name a block.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Block = Literal["conv1", "conv2", "conv3", "conv4", "conv5"]

WHOLE: Block = "conv5"
"""The last block: a transfer through it is a whole one."""


def is_transferred(tensor: str, through: Block) -> bool:
    """Return whether a transfer through a block brings a tensor, such as ``conv3_2.weight``."""
    return tensor.partition(".")[0].partition("_")[0] <= through


def transferred_names(names: Collection[str], through: Block) -> frozenset[str]:
    """Return the tensors that a transfer through a block brings."""
    return frozenset(name for name in names if is_transferred(name, through))


def transfer_blocks(
    source: Mapping[str, Tensor], drawn: Mapping[str, Tensor], through: Block
) -> dict[str, Tensor]:
    """Return a trunk's tensors: the source's through a block, copies of the drawn ones behind it.

    Args:
        source: of a whole trunk, by our names.
        drawn: of a random trunk of the same form.
        through: the last block that is transferred.
    """
    assert source.keys() == drawn.keys()
    return {
        name: source[name] if is_transferred(name, through) else tensor.clone()
        for name, tensor in drawn.items()
    }
