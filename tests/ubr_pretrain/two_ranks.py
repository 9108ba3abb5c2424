"""What two real processes compute together, beside what one computes alone; run by torchrun.

    torchrun --nproc-per-node 2 tests/ubr_pretrain/two_ranks.py OUT

Writes OUT/rank<r>.json: relative distances (largest difference over largest value), also that of
one process in float32 from itself in float64 ("rounding"), and messages.
"""

import json
import signal
import sys
from pathlib import Path

import torch

from ubr_pretrain.late_record import LateRecord
from ubr_pretrain.losses import ubr_loss
from ubr_pretrain.rank_batch_norm import share_batch_norms
from ubr_pretrain.regressor import Regressor
from ubr_pretrain.runtime import Ranks, StopRequest, start_ranks
from ubr_pretrain.trunk import Trunk
from ubr_pretrain.ubr_config import Losses

G, M, SIZE = 4, 4, 32


def regressor(batch_norm: bool, dtype: torch.dtype) -> Regressor:
    torch.manual_seed(0)
    network = Regressor(Trunk(width=0.1, batch_norm=batch_norm), None).to(dtype)
    return network.to(memory_format=torch.channels_last)


def learn(network: Regressor, groups: torch.Tensor, ranks: Ranks, reading: Losses) -> torch.Tensor:
    """Return the scores of this rank's groups; leave the gradients of all in the network."""
    share_batch_norms(network, ranks)
    mine = groups[ranks.rank :: ranks.world_size]
    scores = network(mine.flatten(0, 1)).view(len(mine), M)
    ubr_loss(scores, reading, G).total.backward()
    ranks.sum_gradients(network)
    return scores.detach()


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def gradients_against_one_process(ranks: Ranks) -> dict[str, float]:
    found, exact = {}, torch.empty(0)
    alone = Ranks(0, 1, ranks.device)
    draw = torch.Generator().manual_seed(1)
    drawn = torch.randn(G, M, 3, SIZE, SIZE, generator=draw)
    for batch_norm in (False, True):
        for reduction in ("sum", "mean"):
            for dtype in (torch.float64, torch.float32):
                reading, groups = Losses(reduction=reduction), drawn.to(dtype)
                one, two = regressor(batch_norm, dtype), regressor(batch_norm, dtype)
                learn(one, groups, alone, reading)
                learn(two, groups, ranks, reading)
                flat = [
                    torch.cat([p.grad.flatten() for p in network.parameters()])
                    for network in (two, one)
                ]
                statistics = [
                    torch.cat([b.flatten().double() for b in network.buffers()] or [torch.ones(1)])
                    for network in (two, one)
                ]
                name = f"{'batch norm' if batch_norm else 'plain'} {dtype} {reduction}"
                found[name] = distance(*flat)
                found[f"statistics {name}"] = distance(*statistics)
                exact = flat[1] if dtype == torch.float64 else exact
                found[f"rounding {name}"] = distance(flat[1].double(), exact)
                assert [*two.state_dict()] == [*one.state_dict()]
    return found


def steps_until_all_stop(ranks: Ranks, late: int) -> tuple[int, int]:
    """Return at which step a signal that one rank gets stops this one, and the exit code."""
    stop = StopRequest()
    record = LateRecord(ranks, stop, lambda *_: None, late)
    for step in range(1, 10):
        if step == 3 and ranks.rank == 1:
            stop(signal.SIGTERM, None)
        record.send(step, {"loss": torch.ones(())})
        if record.stopping:
            return step, stop.exit_code
    raise AssertionError("never stopped")


def main() -> None:
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    with start_ranks("cpu") as ranks:
        sums: list[float] = []
        record = LateRecord(ranks, StopRequest(), lambda _, n: sums.append(n["loss"].item()))
        record.send("step", {"loss": torch.tensor(1.0 + ranks.rank)})
        result = {
            "gradients": gradients_against_one_process(ranks),
            "sum": sums,
            "stopped": [steps_until_all_stop(ranks, late) for late in (0, 1)],
        }
        try:
            ranks.require_equal(f"hash {ranks.rank}", "the training data")
        except ValueError as error:
            result["refused"] = str(error)
        (out / f"rank{ranks.rank}.json").write_text(json.dumps(result))
        ranks.wait()


if __name__ == "__main__":
    main()
