"""What a comparison will run: its cells, their proof of equality, and the arms that cannot run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from lesion_det.audit import OWN, Fingerprint, StartHasher, audit_arms, audit_line
from lesion_det.cells import CellKey
from lesion_det.comparison import AuditRow
from lesion_det.det_config import PATHS, Arm, DetConfig
from lesion_det.ground_truth import GroundTruth
from lesion_det.initialization import UBR_START
from lesion_det.splits import Splits, data_sha256, read_splits
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import Config
from ubr_pretrain.foreign_file import weight_file
from ubr_pretrain.transferred_blocks import WHOLE, Block

NO_UBR: Mapping[str, str] = {
    "ubr": "--ubr FILE was not given",
    "ubr-stats": "--ubr FILE was not given",
    "ubr+imagenet": "--ubr-imagenet FILE was not given",
}

OWN_ARMS = tuple(arm for arm in get_args(Arm) if arm != "external")
"""An external trunk is an arm under the name that it is given."""

EXTERNAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Question:
    """What is to be compared.

    Attributes:
        common: the settings of all cells; what is a cell's own (``OWN``) does not count.
        inits: the arms.
        seeds: one training an arm, seed and fraction.
        fractions: of the labels, falling; the comparison itself is made at the first.
        ubr_imagenet: regressor that started from ImageNet, for ``ubr+imagenet``.
        external: trunks of others, by the name of their arm.
        title: of the report.
    """

    common: DetConfig
    inits: tuple[str, ...]
    seeds: tuple[int, ...]
    fractions: tuple[float, ...] = (1.0,)
    ubr_imagenet: Path | None = None
    external: Mapping[str, Path] = field(default_factory=dict)
    title: str = "Lesion detection from different starts"

    @property
    def keys(self) -> tuple[CellKey, ...]:
        """All cells, seed by seed, so that early results already compare arms."""
        return tuple(
            CellKey(arm, seed, fraction)
            for fraction in self.fractions
            for seed in self.seeds
            for arm in self.inits
        )

    def cell_config(self, key: CellKey) -> DetConfig:
        """Return the configuration of one cell, which holds only the weights of its own arm."""
        common = self.common
        arm, through = split_arm(key.arm)
        external = self.external.get(arm)
        ubr = self.ubr_imagenet if arm == "ubr+imagenet" else common.ubr
        own: dict[str, Any] = {
            "init": "external" if external else arm,
            "seed": key.seed,
            "label_fraction": key.fraction,
            "ubr": ubr if arm in UBR_START else None,
            "imagenet_weights": common.imagenet_weights if arm.startswith("imagenet") else None,
            "external": external,
            "external_input": common.external_input if external else None,
            "transfer_through": through,
        }
        assert own.keys() == OWN
        return common.model_copy(update=own)

    @property
    def shared(self) -> DetConfig:
        """The settings that are no cell's own."""
        return self.common.model_copy(
            update={name: DetConfig.model_fields[name].default for name in OWN}
        )

    def settings_yaml(self) -> str:
        """Return the shared settings for a reader; folders of this machine are left out."""
        values = self.shared.model_dump(exclude=set(OWN))
        return yaml.safe_dump(_readable(values), sort_keys=False, default_flow_style=None)


def split_arm(name: str) -> tuple[str, Block]:
    """Return an arm and the last block that it transfers: ``ubr@conv3`` is ``ubr`` through conv3.

    Raises:
        ValueError: what is behind the ``@`` is no block.
    """
    arm, at, through = name.partition("@")
    if not at:
        return arm, WHOLE
    for block in get_args(Block):
        if through == block:
            return arm, block
    raise ValueError(f"--inits {name}: {through} is not one of {', '.join(get_args(Block))}")


def build_question(
    common: DetConfig,
    inits: Sequence[str],
    seeds: Sequence[int],
    fractions: Sequence[float],
    *,
    externals: Sequence[str] = (),
    ubr_imagenet: Path | None = None,
    title: str,
) -> Question:
    """Check what the flags of a comparison ask for.

    Args:
        common: the settings of all cells.
        inits: arms, also through some block only (``ubr@conv3``); those of ``externals`` may be
            among them, else they come last.
        seeds: in the order of running.
        fractions: of the labels, in any order.
        externals: ``NAME=FILE``.
        ubr_imagenet: regressor that started from ImageNet.
        title: of the report.

    Raises:
        ValueError: naming the flag, the value and the rule.
    """
    external: dict[str, Path] = {}
    for given in externals:
        name, _, file = given.partition("=")
        if not file or not EXTERNAL_NAME.fullmatch(name):
            raise ValueError(f"--external {given}: expected NAME=FILE, the name as of a folder")
        if name.lower() in [taken.lower() for taken in (*get_args(Arm), *external)]:
            raise ValueError(f"--external {given}: {name} is the name of another arm")
        external[name] = Path(file)
    for flag, values in (("--inits", inits), ("--seeds", seeds), ("--label-fractions", fractions)):
        if twice := [value for value in values if list(values).count(value) > 1]:
            raise ValueError(f"{flag} {twice[0]}: named twice; one training an arm, seed, fraction")
    arms = tuple(dict.fromkeys([*inits, *external]))
    known = (*OWN_ARMS, *external)
    for name in arms:
        arm, through = split_arm(name)
        if arm not in known:
            raise ValueError(f"--inits {name}: not one of {', '.join(known)}")
        if name != arm and (arm == "random" or through == WHOLE):
            whole = "has nothing to transfer" if arm == "random" else "is the whole trunk"
            raise ValueError(f"--inits {name}: {whole}; write {arm}")
    if min(seeds) < 0:
        raise ValueError(f"--seeds {min(seeds)}: must be >= 0")
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ValueError(f"--label-fractions {fraction:g}: must be > 0 and <= 1")
    named: list[tuple[str, Path | None]] = [
        ("--ubr", common.ubr),
        ("--ubr-imagenet", ubr_imagenet),
        ("--imagenet-weights", common.imagenet_weights),
        *((f"--external {name}", weight_file(trunk)) for name, trunk in external.items()),
    ]
    for flag, path in named:  # a name that is mistyped should not cost the other arms first
        if path is not None and not path.is_file():
            raise ValueError(f"{flag}: {path}: no such file")
    return Question(
        common,
        arms,
        tuple(seeds),
        tuple(sorted(fractions, reverse=True)),
        ubr_imagenet,
        external,
        title,
    )


class SavedQuestion(Config):
    """What may not change between two sessions of a comparison; arms and seeds may be added.

    Attributes:
        common: the settings; ``SAVED_PLACES`` may move.
        data_sha256: of what lies there.
    """

    common: DetConfig
    data_sha256: Mapping[str, str]


SAVED_PLACES = frozenset(f"common.{name}" for name in PATHS)
"""Keys of ``SavedQuestion`` that say where something lies."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What will run, and on what.

    Attributes:
        configs: of every cell, in the order of their running.
        fingerprints: of the same cells.
        not_run: arms that cannot be run, with the reason.
        audit: what is equal between the arms.
        splits: the images.
        file_sha256: of every COCO file, by its name.
        question: what may not change from session to session.
    """

    configs: Mapping[CellKey, DetConfig]
    fingerprints: Mapping[CellKey, Fingerprint]
    not_run: Mapping[str, str]
    audit: tuple[AuditRow, ...]
    splits: Splits
    file_sha256: Mapping[str, str]
    question: SavedQuestion

    @property
    def ground_truth(self) -> GroundTruth:
        """The one validation file."""
        return self.splits.judged[0]

    def cached_configs(self, folder: Path) -> dict[CellKey, DetConfig]:
        """Return the configurations with one cache of inputs for all, ``folder`` if none is named.

        The audit and the question do not know it: a comparison may be moved.
        """
        return {
            key: config.model_copy(update={"cache": config.cache or folder})
            for key, config in self.configs.items()
        }

    def data_words(self, images: Path) -> dict[str, str]:
        """Return what the arms were trained and judged on, in words."""
        learned, truth = self.splits.learned, self.ground_truth
        patients = len({image.patient_index for image in learned})
        lesions = sum(image.num_lesions for image in learned)
        return {
            "trained on": f"{len(learned)} slices with {lesions} lesions of {patients} patients",
            "judged on": f"{len(truth.images)} slices with {truth.num_lesions} lesions of "
            f"{truth.num_patients} patients",
            "images": images.name,
            **{f"SHA-256, {name}": digest for name, digest in self.file_sha256.items()},
        }


def make_plan(question: Question, say: Callable[[str], None]) -> Plan:
    """Read the data, hash every start, and prove that the arms differ in nothing else.

    Args:
        question: what is compared.
        say: prints a line.

    Raises:
        ValueError: the data are refused; there is more than one validation file; no arm can be
            run; the arms differ in something that must be equal.
    """
    common = question.common
    if len(common.val_files) != 1:
        raise ValueError(f"--val: a comparison is judged on one file, not {len(common.val_files)}")
    splits = read_splits(common)
    configs: dict[CellKey, DetConfig] = {}
    fingerprints: dict[CellKey, Fingerprint] = {}
    hash_start = StartHasher(splits.learned)
    not_run: dict[str, str] = {}
    for key in question.keys:
        config = question.cell_config(key)
        if config.init in UBR_START and config.ubr is None:
            not_run[key.arm] = NO_UBR[config.init]
        if key.arm in not_run:
            continue
        try:
            fingerprints[key] = hash_start(config)
        except ValueError as error:
            not_run[key.arm] = " ".join(str(error).split())
        else:
            configs[key] = config
    configs = {key: config for key, config in configs.items() if key.arm not in not_run}
    for line in not_run_lines(not_run):
        say(line)
    if not configs:
        raise ValueError("no arm can be run: " + "; ".join(f"{a}: {r}" for a, r in not_run.items()))
    audit = tuple(audit_arms(configs, fingerprints))
    for row in audit:
        say(audit_line(row))
    if unequal := [row.what for row in audit if row.required and not row.equal]:
        raise ValueError(f"the arms are not comparable, they differ in: {', '.join(unequal)}")
    files = (*common.train_files, *common.val_files, *common.test)
    return Plan(
        configs,
        fingerprints,
        not_run,
        audit,
        splits,
        {file.name: file_sha256(file) for file in files},
        SavedQuestion(common=question.shared, data_sha256=data_sha256(common, splits)),
    )


def not_run_lines(not_run: Mapping[str, str]) -> list[str]:
    """Return why arms cannot be run, a line each."""
    return [f"not run: {arm}: {reason}" for arm, reason in not_run.items()]


def _readable(value: Any) -> Any:
    """Return plain values for YAML, a path as its last part."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(item) for item in value]
    return value
