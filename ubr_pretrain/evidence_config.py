"""What a run of the paper's evidence is made of; the defaults are the paper's numbers.

Free of torch, so that ``--help`` and a refused flag cost a fraction of a second.

Reference:
    Yan, Lu, Summers, ISBI 2018, Section 3.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from ubr_pretrain.config import MAX_SEED, Config
from ubr_pretrain.ubr_config import UbrConfig

SLICES_OF_BATCH = 96
"""m * g in every training, as in the paper."""

OURS = (
    "data",
    "holdout",
    "store",
    "source_weights",
    "seed",
    "arch",
    "start",
    "imagenet_weights",
    "external",
    "anchors",
    "oversample",
)
"""Fields of the regressor's configuration that Table 1 sets itself, or does without: a start from
other weights or anchors would let it see labels."""


class SetSizes(Config):
    """Subjects of every set: a whole number, or below 1 a share of all subjects.

    Two more subjects give the two labelled volumes.

    Attributes:
        unlabelled: trained on without labels.
        test: labelled, only ever classified.
        labelled: trained on with labels by the supervised rows.
    """

    unlabelled: float = Field(800, gt=0)
    test: float = Field(260, gt=0)
    labelled: float = Field(88, gt=0)

    @model_validator(mode="after")
    def _countable(self) -> SetSizes:
        for name, size in self.model_dump().items():
            if size > 1 and size != int(size):
                raise ValueError(f"{name} {size:g}: a number of subjects is whole")
        if sum(share for share in self.model_dump().values() if share < 1) > 1:
            raise ValueError("the shares of unlabelled, test and labelled add up to more than 1")
        return self


class Phantoms(Config):
    """The synthetic cohort that stands in where no data are given, one volume a subject.

    Attributes:
        seed: of the bodies.
        size_px: side of the rendered slices.
        max_slices: of a volume, kept by a coarser interval.
        abnormal: further volumes with fluid, metal, lost slices or a wrong order, for Fig. 4.
        workers: processes that render.
    """

    seed: int = Field(0, ge=0, le=MAX_SEED)
    size_px: int = Field(128, ge=32)
    max_slices: int = Field(160, ge=16)
    abnormal: int = Field(10, ge=0)
    workers: int = Field(1, ge=1)


class Baselines(Config):
    """Lengths of the trainings behind rows 1 to 3, in batches of ``SLICES_OF_BATCH`` slices.

    Attributes:
        supervised: iterations of the 3-class softmax.
        order: iterations of the self-supervised order classifier.
        position: iterations of the fine-tuning that regresses the position.
        position_pairs: how many pairs of labelled volumes row 3 is fine-tuned with (the two
            volumes of all two-volume rows, then others): every one is a training.
    """

    supervised: int = Field(1500, ge=1)
    order: int = Field(1500, ge=1)
    position: int = Field(1500, ge=1)
    position_pairs: int = Field(5, ge=1)


class Sweep(Config):
    """Fig. 3b: accuracy against m with and without the distance loss, m * g = 96.

    Attributes:
        m: slices of a group.
        iterations: of every training.
        seeds: of every point.
    """

    m: tuple[int, ...] = (3, 4, 6, 8, 12, 16)
    iterations: int = Field(1500, ge=1)
    seeds: tuple[int, ...] = (0, 1, 2)

    @model_validator(mode="after")
    def _possible(self) -> Sweep:
        if wrong := [m for m in self.m if m < 3 or SLICES_OF_BATCH % m]:
            raise ValueError(
                f"m {wrong[0]}: must be at least 3 (two slices have no distance loss) and divide "
                f"{SLICES_OF_BATCH}"
            )
        return self


class EvidenceConfig(Config):
    """Table 1 and Figures 2 to 4.

    Attributes:
        data: files, folders or DICOM trees of a labelled cohort; none: phantoms are rendered.
        labels: its table of slice classes (volume, index_sup_to_inf, class).
        sets: how many subjects go where.
        phantoms: the synthetic cohort, where no data are given.
        ubr: the regressor of rows 4 and 6; the other rows share its trunk, input, views and
            optimiser.
        alexnet_width: channel multiplier of row 5.
        baselines: lengths of rows 1 to 3.
        sweep: Fig. 3b.
        seeds: every row is trained with each.
        pairs: how many pairs of labelled volumes set thresholds, for the spread over the draw.
        draw_seed: of the sets, the two volumes and the pairs.
    """

    data: tuple[Path, ...] = ()
    labels: Path | None = None
    sets: SetSizes = SetSizes()
    phantoms: Phantoms = Phantoms()
    ubr: UbrConfig = UbrConfig()
    alexnet_width: float = Field(1.0, gt=0, le=4)
    baselines: Baselines = Baselines()
    sweep: Sweep = Sweep()
    seeds: tuple[int, ...] = (0, 1, 2)
    pairs: int = Field(100, ge=1)
    draw_seed: int = Field(0, ge=0, le=MAX_SEED)

    @model_validator(mode="after")
    def _consistent(self) -> EvidenceConfig:
        if bool(self.data) != (self.labels is not None):
            raise ValueError("data and labels belong together: give both, or neither for phantoms")
        if self.ubr.g * self.ubr.m != SLICES_OF_BATCH:
            raise ValueError(
                f"ubr.g {self.ubr.g} x ubr.m {self.ubr.m}: must make {SLICES_OF_BATCH} slices"
            )
        for name in OURS:
            if getattr(self.ubr, name) != UbrConfig.model_fields[name].default:
                raise ValueError(f"ubr.{name}: the rows set it themselves")
        for name, seeds in (("seeds", self.seeds), ("sweep.seeds", self.sweep.seeds)):
            if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
                raise ValueError(f"{name} {list(seeds)}: at least one, none twice, none negative")
        return self
