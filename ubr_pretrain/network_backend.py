"""A regressor as a function from Hounsfield units to scores, by the library that is to run it.

| backend | runs | start, of the packaged scorer |
|---|---|---|
| torch | the modules as they are, channels last; "auto" means this one, everywhere | none |
| compiled | ``torch.compile`` with its weights frozen; needs a C++ compiler | half a minute |
| onnxruntime | the graph that ``export_backbone.py --layout onnx-scorer`` writes | 4 s |
| openvino | the exported program | 2 s |
| bf16 | the modules in bfloat16, the mean over a slice and fc7 in float32 | none |

Each is held against plain PyTorch on random slices before it is used: to ``TOLERANCE``, bf16 to
``BF16_TOLERANCE``.

Shapes:
    n: slices at a time; S: ``InputSpec.size_px``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import torch
from torch import Tensor

from ubr_pretrain.hu_networks import HuScores, random_slices, relative_difference
from ubr_pretrain.machine import instructions
from ubr_pretrain.network_input import network_input
from ubr_pretrain.regressor import TrainedRegressor

Backend = Literal["auto", "torch", "compiled", "onnxruntime", "openvino", "bf16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

TOLERANCE = 1e-5
"""Largest difference of a backend's scores from plain PyTorch's, of the largest score."""

BF16_TOLERANCE = 1e-2
"""The same for bfloat16, which has eight bits: half of it on random slices, a fifth on CT, which is
a tenth of what a slice differs from its neighbour (``RESULTS.md``)."""

CHECKED_SLICES = 4
FEWEST, MOST, MOST_ON_GPU = 8, 32, 256
"""Slices at a time: fewer waste time on calls, more no longer fit into the cache."""

NEEDED = {
    "compiled": (),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "bf16": (),
}
BF16_INSTRUCTIONS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True, eq=False)
class ScoreNetwork:
    """A network that scores slices, and the threads that call it.

    Every call runs on one core: several calls at once waste none on waiting for each other, and
    the scores are the same however many threads there are.

    Attributes:
        backend: that runs it, never "auto".
        device: where it runs.
        scores: float32 HU [n, S, S] on ``device`` -> float32 scores [n]; from any thread.
        threads: that call it.
    """

    backend: Backend
    device: torch.device
    scores: Callable[[Tensor], Tensor]
    threads: int
    _workers: ThreadPoolExecutor

    def parts(self, num_slices: int) -> Iterator[slice]:
        """Split slices so that every thread has some, and none many at a time.

        All parts but the last are whole blocks of ``FEWEST``: matrix products round the rows that
        are left over in another way, and the same slices are left over however they are split. A
        slice alone, too, is rounded as none is in company: the last of many is never alone.
        """
        most = MOST_ON_GPU if self.device.type == "cuda" else MOST
        blocks = -(-num_slices // (2 * self.threads * FEWEST))
        size = min(most, max(1, blocks) * FEWEST)
        bounds = [*range(0, num_slices, size), num_slices]
        if num_slices > 1 and num_slices % size == 1:
            bounds[-2] -= FEWEST
        for first, end in pairwise(sorted(set(bounds))):
            yield slice(first, end)

    def submit(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **named: Arguments.kwargs
    ) -> Future[Result]:
        """Have a thread do something, after what was submitted before."""
        return self._workers.submit(work, *args, **named)

    def abandon(self) -> None:
        """Begin nothing more of what was submitted; who waits for it gets a `CancelledError`."""
        self._workers.shutdown(wait=False, cancel_futures=True)


def build_network(
    trained: TrainedRegressor,
    device: torch.device,
    backend: Backend = "auto",
    threads: int | None = None,
) -> ScoreNetwork:
    """Return a regressor, ready to score.

    Args:
        trained: moved to ``device``.
        device: a GPU only with "torch" and "bf16".
        backend: "auto" is "torch" wherever it runs, so that results never depend on what is
            installed.
        threads: that call it; None: as many as PyTorch would use.

    Raises:
        ValueError: unknown, not installed, not for this device, not equal to plain PyTorch within
            the tolerance, or ``threads`` below 1.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is none of {', '.join(BACKENDS)}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads {threads} must be >= 1")
    chosen: Backend = "torch" if backend == "auto" else backend
    num_threads = threads or torch.get_num_threads()
    regressor, spec = trained.regressor, trained.input_spec
    # half the time on a CPU, and the same scores to the sixth digit
    regressor.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def plain(hu: Tensor) -> Tensor:
        with torch.inference_mode():
            return regressor(network_input(hu, spec))

    workers = _one_thread_each(num_threads)
    if chosen == "torch":
        return ScoreNetwork(chosen, device, plain, num_threads, workers)
    if chosen == "bf16" and not computes_bf16(device):
        raise ValueError(
            f"backend bf16: no bfloat16 arithmetic on {device}, where it is slower: choose torch"
        )
    if device.type != "cpu" and chosen != "bf16":
        raise ValueError(f"backend {chosen} runs on the CPU, not on {device}: choose torch")
    if missing := [name for name in NEEDED[chosen] if find_spec(name) is None]:
        raise ValueError(
            f"backend {chosen} needs {', '.join(missing)}: "
            f"pip install 'ct-body-part-transfer[{EXTRAS[chosen]}]'"
        )
    build = {
        "compiled": _compiled,
        "onnxruntime": _onnxruntime,
        "openvino": _openvino,
        "bf16": _bf16,
    }[chosen]
    network = HuScores(regressor, spec).eval()
    scores = build(network, spec.size_px, num_threads)
    hu = random_slices(spec, (CHECKED_SLICES, 1, spec.size_px, spec.size_px))[:, 0].to(device)
    (theirs,) = workers.map(scores, [hu])
    tolerance = BF16_TOLERANCE if chosen == "bf16" else TOLERANCE
    if not (off := relative_difference(plain(hu), theirs)) <= tolerance:
        raise ValueError(
            f"backend {chosen}: its scores are off by {off:.1g} of the largest, limit "
            f"{tolerance:g}: choose torch"
        )
    return ScoreNetwork(chosen, device, scores, num_threads, workers)


def computes_bf16(device: torch.device) -> bool:
    """Return whether a device multiplies in bfloat16 itself; others imitate it, slowly."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and not BF16_INSTRUCTIONS.isdisjoint(instructions())


def _one_thread_each(threads: int) -> ThreadPoolExecutor:
    """Return workers whose PyTorch calls stay on the core of the worker."""
    before, all_there = torch.get_num_threads(), threading.Barrier(threads)
    workers = ThreadPoolExecutor(threads, "score", initializer=torch.set_num_threads, initargs=(1,))
    list(workers.map(lambda _: all_there.wait(), range(threads)))
    torch.set_num_threads(before)  # what the workers set was also noted for threads to come
    return workers


def _bf16(network: HuScores, size_px: int, threads: int) -> Callable[[Tensor], Tensor]:
    """Return the network in bfloat16 up to conv6: rounding goes under in the mean behind it."""
    del size_px, threads
    regressor = network.regressor

    def scores(hu: Tensor) -> Tensor:
        with torch.inference_mode():
            with torch.autocast(hu.device.type, torch.bfloat16):
                features = torch.relu(regressor.conv6(regressor.trunk(network.window(hu[:, None]))))
            return regressor.fc7(features.float().mean(dim=(2, 3))).squeeze(1)

    return scores


def _compiled(network: HuScores, size_px: int, threads: int) -> Callable[[Tensor], Tensor]:
    """Return the network compiled for a fixed number of slices; fewer are filled up."""
    del threads
    from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
    from torch._inductor.exc import InductorError

    compiled = torch.compile(network, dynamic=False, fullgraph=True, options={"freezing": True})
    lock = threading.Lock()
    is_ready = False

    def scores(hu: Tensor) -> Tensor:
        nonlocal is_ready
        full = torch.zeros(MOST, 1, size_px, size_px)
        full[: len(hu), 0] = hu
        with torch.no_grad():
            if is_ready:
                return compiled(full)[: len(hu)]
            with lock:  # the first call compiles
                try:
                    result = compiled(full)[: len(hu)]
                except (BackendCompilerFailed, InductorError, TorchDynamoException) as error:
                    reason = str(error).strip().splitlines()[0]
                    raise ValueError(f"backend compiled: {reason}") from error
                is_ready = True
                return result

    return scores


def _onnxruntime(network: HuScores, size_px: int, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a session whose calls run on the thread that makes them."""
    del threads
    import onnxruntime

    from ubr_pretrain.onnx_program import to_onnx_program

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        to_onnx_program(network, size_px).model_proto.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )

    def scores(hu: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["scores"], {"hu": hu[:, None].numpy()})[0])

    return scores


def _openvino(network: HuScores, size_px: int, threads: int) -> Callable[[Tensor], Tensor]:
    """Return a model of one stream a thread, in float32; threads are not bound to cores."""
    import openvino

    program = torch.export.export(
        network,
        (torch.zeros(2, 1, size_px, size_px),),
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    model: Any = openvino.Core().compile_model(
        openvino.convert_model(program),
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    own = threading.local()

    def scores(hu: Tensor) -> Tensor:
        if not hasattr(own, "request"):
            own.request = model.create_infer_request()
        return torch.from_numpy(own.request.infer([hu[:, None].numpy()])[0].copy())

    return scores
