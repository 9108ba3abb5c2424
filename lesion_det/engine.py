"""Which library computes the detector: torchvision's parts, or Detectron2's."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lesion_det.det_config import DetectorConfig, Engine
from lesion_det.detector import Detector
from ubr_pretrain.ct import InputSpec
from ubr_pretrain.trunk import Trunk

if TYPE_CHECKING:
    from lesion_det.detector_d2 import Detectron2Detector

LesionDetector: TypeAlias = "Detector | Detectron2Detector"
"""Either has the same losses, the same answers and the same ``state_dict``."""

INSTALL = "https://detectron2.readthedocs.io/tutorials/install.html"


def build_detector(
    engine: Engine,
    trunk: Trunk,
    input_spec: InputSpec,
    config: DetectorConfig,
    head_seed: int | None,
) -> LesionDetector:
    """Return a new detector; its tensors do not depend on the engine.

    Raises:
        ValueError: the engine is not installed, or the trunk does not fit.
    """
    detector = Detector(trunk, input_spec, config, head_seed)
    if engine == "torchvision":
        return detector
    require_detectron2()
    from lesion_det.detector_d2 import Detectron2Detector

    return Detectron2Detector(detector)


def has_detectron2() -> bool:
    """Return whether Detectron2 is installed, be it broken."""
    try:
        import detectron2  # noqa: F401
    except ImportError:
        return False
    return True


def require_detectron2() -> None:
    """Refuse to go on without Detectron2.

    Raises:
        ValueError: not installed, or a folder of that name stands in its place.
    """
    try:
        import detectron2.modeling  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"--engine detectron2: Detectron2 cannot be imported ({error}); install it from "
            f"{INSTALL}, or use --engine torchvision"
        ) from error
