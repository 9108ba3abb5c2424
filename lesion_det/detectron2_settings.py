"""The detector's settings as keys of a Detectron2 configuration, and back; without Detectron2.

Every number in which Detectron2 and torchvision differ is stated, none is left to a default:

=====================================  ==========================  ==========================
setting                                here (torchvision's)        Detectron2's default
=====================================  ==========================  ==========================
anchors                                rounded to whole pixels     not rounded
anchor order, class order              see ``detector_layouts``
RoIAlign                               aligned, 2 x 2 samples      aligned, as many as fit
smooth L1                              beta 1/9, RPN and head      0 (plain L1)
proposals before / after suppression   of ``DetectorConfig``       12000 / 2000, 6000 / 1000
score and suppression of detections    0, IoU 0.3                  0.05, IoU 0.5
image statistics, channel order        of the ``InputSpec``, RGB   BGR, means of ImageNet
padding                                air, before normalisation   0, after it
frozen stages                          none                        2
=====================================  ==========================  ==========================

``LesionRCNN`` does what no key can say: air as padding, and proposals below 0.001 px and detections
below 0.01 px dropped before the best are chosen. What remains: Detectron2 divides the RPN's losses
by the anchors asked for, torchvision by those there were; Detectron2 drops boxes that are not
finite; torchvision drops small detections before suppression, ``LesionRCNN`` after. No detection
was seen to differ by these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from converters.layouts import detectron2_input
from lesion_det.det_config import DROP, DetConfig, DetectorConfig, InputConfig
from lesion_det.detector import (
    ASPECT_RATIOS,
    BOX_CODER_WEIGHTS,
    DETECTION_NMS_IOU,
    ROI_BACKGROUND_IOU,
    ROI_FOREGROUND_FRACTION,
    ROI_SAMPLES,
    ROI_SIZE,
    RPN_BACKGROUND_IOU,
    RPN_FOREGROUND_FRACTION,
    RPN_FOREGROUND_IOU,
    RPN_NMS_IOU,
)
from ubr_pretrain.config import first_problem
from ubr_pretrain.ct import InputSpec, Window
from ubr_pretrain.network_input import GREY_MAX

SMOOTH_L1_BETA = 1 / 9
FEATURES = "conv5"
TOLERANCE = 1e-6
"""Relative; a number that went through YAML."""


@dataclass(frozen=True)
class DetectorSettings:
    """All that a detector's tensors need around them."""

    width: float
    detector: DetectorConfig
    input: InputConfig
    input_spec: InputSpec


def detectron2_settings(settings: DetectorSettings) -> dict[str, Any]:
    """Return the nested keys, as a YAML file of Detectron2 states them.

    ``MODEL.VGG`` and ``INPUT.CT`` are ours; ``import lesion_det.detector_d2`` makes Detectron2
    know them.
    """
    config, spec, read = settings.detector, settings.input_spec, settings.input
    values = detectron2_input(spec)
    return {
        "VERSION": 2,
        "MODEL": {
            "META_ARCHITECTURE": "LesionRCNN",
            "PIXEL_MEAN": list(values.pixel_mean),
            "PIXEL_STD": list(values.pixel_std),
            "LOAD_PROPOSALS": False,
            "MASK_ON": False,
            "KEYPOINT_ON": False,
            "BACKBONE": {"NAME": "build_vgg16_backbone", "FREEZE_AT": 0},
            "VGG": {
                "WIDTH": float(settings.width),
                "STRIDE": config.stride,
                "OUT_FEATURES": [FEATURES],
            },
            "PROPOSAL_GENERATOR": {"NAME": "RPN", "MIN_SIZE": 0},
            "ANCHOR_GENERATOR": {
                "NAME": "RoundedAnchorGenerator",
                "SIZES": [list(config.anchor_sizes_px)],
                "ASPECT_RATIOS": [list(ASPECT_RATIOS)],
                "OFFSET": 0.0,
            },
            "RPN": {
                "HEAD_NAME": "StandardRPNHead",
                "IN_FEATURES": [FEATURES],
                "CONV_DIMS": [-1],
                "BOUNDARY_THRESH": -1,
                "IOU_THRESHOLDS": [RPN_BACKGROUND_IOU, RPN_FOREGROUND_IOU],
                "IOU_LABELS": [0, -1, 1],
                "BATCH_SIZE_PER_IMAGE": config.rpn_batch,
                "POSITIVE_FRACTION": RPN_FOREGROUND_FRACTION,
                "BBOX_REG_LOSS_TYPE": "smooth_l1",
                "BBOX_REG_LOSS_WEIGHT": 1.0,
                "BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
                "SMOOTH_L1_BETA": SMOOTH_L1_BETA,
                "LOSS_WEIGHT": 1.0,
                "PRE_NMS_TOPK_TRAIN": config.train_top_n[0],
                "POST_NMS_TOPK_TRAIN": config.train_top_n[1],
                "PRE_NMS_TOPK_TEST": config.test_top_n[0],
                "POST_NMS_TOPK_TEST": config.test_top_n[1],
                "NMS_THRESH": RPN_NMS_IOU,
            },
            "ROI_HEADS": {
                "NAME": "StandardROIHeads",
                "NUM_CLASSES": 1,
                "IN_FEATURES": [FEATURES],
                "IOU_THRESHOLDS": [ROI_BACKGROUND_IOU],
                "IOU_LABELS": [0, 1],
                "BATCH_SIZE_PER_IMAGE": config.roi_batch,
                "POSITIVE_FRACTION": ROI_FOREGROUND_FRACTION,
                "PROPOSAL_APPEND_GT": True,
                "SCORE_THRESH_TEST": 0.0,
                "NMS_THRESH_TEST": DETECTION_NMS_IOU,
            },
            "ROI_BOX_HEAD": {
                "NAME": "FastRCNNConvFCHead",
                "NUM_CONV": 0,
                "NUM_FC": 2,
                "FC_DIM": config.fc_dim,
                "NORM": "",
                "POOLER_TYPE": "ROIAlignV2",
                "POOLER_RESOLUTION": ROI_SIZE,
                "POOLER_SAMPLING_RATIO": ROI_SAMPLES,
                "CLS_AGNOSTIC_BBOX_REG": False,
                "BBOX_REG_LOSS_TYPE": "smooth_l1",
                "BBOX_REG_LOSS_WEIGHT": 1.0,
                "BBOX_REG_WEIGHTS": list(BOX_CODER_WEIGHTS),
                "SMOOTH_L1_BETA": SMOOTH_L1_BETA,
                "TRAIN_ON_PRED_BOXES": False,
                "USE_SIGMOID_CE": False,
                "USE_FED_LOSS": False,
            },
        },
        "INPUT": {
            "FORMAT": values.format,
            "CT": {
                "WINDOW_HU": [spec.window.lower_hu, spec.window.upper_hu],
                "SLICES": read.slices,
                "INTERVAL_MM": read.interval_mm,
                "PIXEL_MM": read.pixel_mm or 0.0,  # 0: as stored
                "MAX_PX": read.max_px or 0,  # 0: no limit
                "CLIP_BORDER": read.clip_border,
            },
        },
        "DATASETS": {"TRAIN": ["deeplesion_train"], "TEST": ["deeplesion_val"]},
        "TEST": {"DETECTIONS_PER_IMAGE": config.max_detections},
    }


def solver_settings(config: DetConfig) -> dict[str, Any]:
    """Return the keys under which Detectron2's own trainer follows our schedule.

    Its ``SOLVER`` knows SGD alone; nothing is said of another optimiser.
    """
    optimiser = config.optimiser
    if optimiser.name != "sgd":
        return {}
    cold = optimiser.model_copy(update={"warmup": 0})
    lrs = [cold.lr_at(i, config.iterations, config.init) for i in range(1, config.iterations + 1)]
    clip = optimiser.max_grad_norm
    return {
        "SOLVER": {
            "IMS_PER_BATCH": config.batch,
            "MAX_ITER": config.iterations,
            "BASE_LR": optimiser.lr,
            "STEPS": [i for i in range(1, len(lrs)) if lrs[i] < lrs[i - 1]],
            "GAMMA": DROP,
            "MOMENTUM": optimiser.momentum,
            "WEIGHT_DECAY": optimiser.weight_decay,
            "WEIGHT_DECAY_BIAS": 0.0,
            "WARMUP_ITERS": optimiser.warmup,
            "WARMUP_FACTOR": 1 / max(optimiser.warmup, 1),
            "CLIP_GRADIENTS": {
                "ENABLED": clip is not None,
                "CLIP_TYPE": "full_model",
                "CLIP_VALUE": clip or 1.0,
            },
            "CHECKPOINT_PERIOD": config.save_every,
        }
    }


def read_detectron2_settings(keys: Mapping[str, Any], source: str) -> DetectorSettings:
    """Return the settings that a configuration states; all of it must be expressible here.

    Args:
        keys: nested, complete (as ``DefaultTrainer`` writes ``config.yaml``, or ours).
        source: for messages.

    Raises:
        ValueError: a key is missing, or says what the torchvision detector does not do; key, value
            and what is needed are named.
    """
    try:
        model, ct = keys["MODEL"], keys["INPUT"]["CT"]
        rpn, roi = model["RPN"], model["ROI_HEADS"]
        settings = DetectorSettings(
            width=float(model["VGG"]["WIDTH"]),
            detector=DetectorConfig(
                stride=model["VGG"]["STRIDE"],
                fc_dim=model["ROI_BOX_HEAD"]["FC_DIM"],
                anchor_sizes_px=tuple(model["ANCHOR_GENERATOR"]["SIZES"][0]),
                rpn_batch=rpn["BATCH_SIZE_PER_IMAGE"],
                roi_batch=roi["BATCH_SIZE_PER_IMAGE"],
                train_top_n=(rpn["PRE_NMS_TOPK_TRAIN"], rpn["POST_NMS_TOPK_TRAIN"]),
                test_top_n=(rpn["PRE_NMS_TOPK_TEST"], rpn["POST_NMS_TOPK_TEST"]),
                max_detections=keys["TEST"]["DETECTIONS_PER_IMAGE"],
            ),
            input=read_input(ct)[0],
            input_spec=InputSpec(
                window=read_input(ct)[1],
                scale=GREY_MAX,
                mean=tuple(model["PIXEL_MEAN"]),
                std=tuple(model["PIXEL_STD"]),
            ),
        )
    except KeyError as error:
        raise ValueError(
            f"{source}: lacks {error.args[0]}; expected a whole config.yaml"
        ) from error
    except ValidationError as error:
        raise ValueError(f"{source}: {first_problem(error)}") from error
    except (TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{source}: no configuration of this detector ({error})") from error
    differences(detectron2_settings(settings), keys, source)
    return settings


def read_input(ct: Mapping[str, Any]) -> tuple[InputConfig, Window]:
    """Return what the keys under ``INPUT.CT`` say."""
    config = InputConfig(
        slices=ct["SLICES"],
        interval_mm=ct["INTERVAL_MM"],
        pixel_mm=ct["PIXEL_MM"] or None,
        max_px=ct["MAX_PX"] or None,
        clip_border=ct["CLIP_BORDER"],
    )
    return config, Window(lower_hu=ct["WINDOW_HU"][0], upper_hu=ct["WINDOW_HU"][1])


SEEDED = {"SeededRPN": "RPN", "SeededROIHeads": "StandardROIHeads"}
"""Our training's forms of Detectron2's parts; they compute the same."""

OF_A_TRAINING = ("DATASETS", "FREEZE_AT")
"""Keys that change nothing in what is computed."""


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    """Refuse a configuration that says otherwise than ``wanted``.

    Raises:
        ValueError: naming the first key, its value, and the one that is needed.
    """
    for path, value in _leaves(wanted, ()):
        if set(path) & set(OF_A_TRAINING):
            continue
        here: Any = found
        for name in path:
            if not isinstance(here, Mapping) or name not in here:
                raise ValueError(f"{source}: lacks {'.'.join(path)}; expected a whole config.yaml")
            here = here[name]
        here = SEEDED.get(here, here) if isinstance(here, str) else here
        if not _equal(value, here):
            raise ValueError(f"{source}: {'.'.join(path)} is {here}, the detector needs {value}")


def _leaves(
    keys: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in keys.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _equal(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, list):
        return (
            isinstance(found, (list, tuple))
            and len(wanted) == len(found)
            and all(map(_equal, wanted, found))
        )
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        return abs(wanted - found) <= TOLERANCE * max(abs(wanted), abs(found))
    return bool(wanted == found)
