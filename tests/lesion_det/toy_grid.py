"""A comparison whose cells only pretend to be trained, and some of which end otherwise."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path

from lesion_det.comparison import Comparison
from lesion_det.launch import Ending, Stopped, Task
from lesion_det.plan import Question
from tests.lesion_det.toy_comparison import pretend_training


class Trainer:
    """Counts the cells that it is asked to train; some of them end otherwise."""

    def __init__(self, **endings: Callable[[], str]) -> None:
        self.endings = endings
        self.trained: list[str] = []

    def __call__(
        self, tasks: Sequence[Task], say: Callable[[str], None]
    ) -> Generator[Ending, None, None]:
        for task in tasks:
            self.trained.append(task.folder.name)
            ending = self.endings.get(f"{task.key.arm}_{task.key.seed}")
            if not ending:
                pretend_training(task.config, task.folder)
            yield Ending(task.key, ending() if ending else "")


def explode() -> str:
    return "iteration 7: loss not finite"


def be_stopped() -> str:
    raise Stopped("stopped", 143)


def quiet(_: str) -> None:
    return None


def result(out: Path) -> Comparison:
    return Comparison.model_validate_json((out / "comparison.json").read_bytes())


def flags(question: Question, out: Path) -> list[str]:
    assert question.common.coco is not None
    return [
        *("--coco", str(question.common.coco), "--images", str(question.common.images)),
        *("--ubr", str(question.common.ubr), "--width", "0.05", "--detector.fc_dim", "8"),
        *("--iterations", "40", "--device", "cpu", "--out", str(out)),
    ]
