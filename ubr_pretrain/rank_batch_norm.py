"""Batch norm whose statistics are those of all ranks: N processes equal one with the same batch.

Every rank sends count, mean and sum of squared deviations of its share, and puts all of them
together (Chan's update), which stays exact where a sum of squares would not.

Shapes:
    N: images of this rank; C: channels; H, W: pixels.

Reference:
    Ioffe, Szegedy, ICML 2015. On GPUs the same is ``torch.nn.SyncBatchNorm``, which a CPU lacks.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ubr_pretrain.runtime import Ranks


def share_batch_norms(network: nn.Module, ranks: Ranks) -> None:
    """Replace the batch norms of a network where there are several ranks.

    Parameters, statistics and their names stay as they are.

    Args:
        network: is changed.
        ranks: who shares a batch.
    """
    if ranks.world_size == 1:
        return
    if ranks.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for parent in [*network.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, RankBatchNorm(child, ranks))


class RankBatchNorm(nn.BatchNorm2d):
    """A batch norm over the ranks; in eval mode it is the plain one.

    Args:
        plain: whose parameters and statistics it takes over.
        ranks: who shares a batch.
    """

    def __init__(self, plain: nn.BatchNorm2d, ranks: Ranks) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.load_state_dict(plain.state_dict(), assign=True)
        self.weight, self.bias = plain.weight, plain.bias
        self.ranks = ranks
        self.train(plain.training)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it talks to other processes
    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Normalise by the mean and variance of all ranks' images."""
        if not self.training:
            return super().forward(x)
        normalised, mean, var, count = _Normalise.apply(x, self.eps, self.ranks)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            unbiased = var * count / (count - 1)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return normalised * self.weight[:, None, None] + self.bias[:, None, None]


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps), by the mean and variance of all ranks' images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, ...]:
        own = x.double()
        share = own.new_zeros(ranks.world_size, 3, x.shape[1])
        mean = own.mean((0, 2, 3))
        share[ranks.rank, 0] = own[:, 0].numel()
        share[ranks.rank, 1] = mean
        share[ranks.rank, 2] = (own - mean[:, None, None]).square().sum((0, 2, 3))
        ranks.add_up(share)
        count, means, squares = share.unbind(1)
        total = count.sum(0)
        mean = (count * means).sum(0) / total
        var = (squares + count * (means - mean).square()).sum(0) / total
        scale = (var + eps).rsqrt()
        normalised = ((own - mean[:, None, None]) * scale[:, None, None]).to(x)
        ctx.save_for_backward(normalised, scale, total)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, var, total)
        return normalised, mean, var, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        normalised, scale, total = ctx.saved_tensors
        dy = gradients[0].double()
        sums = torch.stack([dy.sum((0, 2, 3)), (dy * normalised).sum((0, 2, 3))])
        ctx.ranks.add_up(sums)
        mean_dy, mean_dy_y = sums[:, :, None, None] / total[:, None, None]
        return (
            ((dy - mean_dy - normalised * mean_dy_y) * scale[:, None, None]).to(normalised),
            None,
            None,
        )
