"""What is trained for Table 1 and Fig. 3b: every cell, the later ones reading the earlier."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy import ndarray

from ubr_pretrain.baselines import (
    OrderClassifier,
    network_outputs,
    train_order_classifier,
    train_position_regressor,
    train_zone_classifier,
)
from ubr_pretrain.checkpoint import read_checkpoint, write_checkpoint
from ubr_pretrain.evidence_cells import Arrays, Facts, PlannedCell, Say
from ubr_pretrain.evidence_config import SLICES_OF_BATCH
from ubr_pretrain.evidence_data import EvidenceData
from ubr_pretrain.pool6 import fit_pool6
from ubr_pretrain.regressor import read_regressor
from ubr_pretrain.run_folder import RunFolder
from ubr_pretrain.runtime import generator
from ubr_pretrain.scoring import read_curve, score_slices
from ubr_pretrain.slice_positions import slice_positions, typical_lengths
from ubr_pretrain.slice_store import StoredVolume
from ubr_pretrain.spreadsheet import harmless
from ubr_pretrain.starting_trunk import start_trunk
from ubr_pretrain.train_ubr import train
from ubr_pretrain.ubr_config import UbrConfig
from ubr_pretrain.zones import fit_thresholds

_ORDER_TEST = 21
"""A stream of random numbers."""

ALEXNET_COST = 0.2
"""Of a training step, relative to VGG-16's."""

NUM_ORDER_TESTS = 1000


class Stopped(Exception):  # noqa: N818
    """A signal ended a training early; the same command goes on.

    Attributes:
        code: 128 + the signal.
    """

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"stopped by signal {code - 128}; the same command continues")


def make_plan(data: EvidenceData) -> list[PlannedCell]:
    """Return all cells: the rows of Table 1 seed by seed, then the sweep."""
    config, lengths = data.config, data.config.baselines
    plan: list[PlannedCell] = []

    def add(name: str, cost: float, compute: Any, *arguments: Any) -> None:
        plan.append(
            PlannedCell(name, cost, lambda folder, say: compute(data, folder, say, *arguments))
        )

    for seed in config.seeds:
        vgg = data.ubr_config(data.sets.unlabelled, seed)
        add(f"vgg16-seed{seed}", vgg.iterations, _train_regressor, vgg, True)
        alexnet = data.ubr_config(
            data.sets.unlabelled, seed, arch="alexnet", width=config.alexnet_width
        )
        add(f"alexnet-seed{seed}", ALEXNET_COST * vgg.iterations, _train_regressor, alexnet, False)
        add(f"pool6-seed{seed}", 0.02 * vgg.iterations, _fit_pool6, seed)
        add(f"supervised-seed{seed}", lengths.supervised, _train_supervised, vgg)
        add(f"order-seed{seed}", lengths.order, _train_order, vgg)
        everyone = [volume.name for volume in data.sets.labelled]
        add(f"position-all-seed{seed}", lengths.position, _train_position, vgg, everyone)
        pairs = data.position_pairs if seed == config.seeds[0] else data.position_pairs[:1]
        for number, pair in enumerate(pairs):
            name = f"position-pair{number}-seed{seed}"
            add(name, lengths.position, _train_position, vgg, [*pair])
    for seed in config.sweep.seeds:
        for m in config.sweep.m:
            for distance in (True, False):
                losses = config.ubr.losses
                if not distance:
                    losses = losses.model_copy(update={"distance_weight": 0.0})
                cell = data.ubr_config(
                    data.swept,
                    seed,
                    m=m,
                    g=SLICES_OF_BATCH // m,
                    losses=losses,
                    iterations=config.sweep.iterations,
                )
                name = sweep_name(m, distance, seed)
                add(name, config.sweep.iterations, _train_regressor, cell, False)
    return plan


def sweep_name(m: int, distance: bool, seed: int) -> str:
    """Return the name of a cell of Fig. 3b."""
    return f"m{m:02d}-{'with' if distance else 'without'}-distance-seed{seed}"


def _train_regressor(
    data: EvidenceData, folder: Path, _say: Say, config: UbrConfig, abnormal: bool
) -> tuple[Arrays, Facts]:
    run = RunFolder(folder / "run")
    if run.read_manifest().get("status") != "finished":
        code = train(config, run.path)
        if code > 1:
            raise Stopped(code)
    _require_unlabelled(data, run.path / "manifest.csv")
    trained = read_regressor(run.last)
    regressor = trained.regressor.to(data.device)

    def scores(volumes: Sequence[StoredVolume]) -> ndarray:
        parts = [score_slices(regressor, v.slices, config.input, data.device) for v in volumes]
        return np.concatenate(parts)

    judged = scores(data.judged)
    curves = np.split(judged, np.cumsum([len(v.z_mm) for v in data.judged])[:-1])
    r = [read_curve(c, np.asarray(v.z_mm)).r for c, v in zip(curves, data.judged, strict=True)]
    facts = {
        "iterations": config.iterations,
        "m": config.m,
        "g": config.g,
        "num_volumes": trained.provenance.num_volumes,
        "data_sha256": trained.provenance.data_sha256,
        "r_median_of_test": float(np.median([x or 0.0 for x in r[: len(data.sets.test)]])),
    }
    arrays = {"scores": judged}
    if abnormal and data.abnormal:
        arrays["abnormal"] = scores(data.abnormal)
    return arrays, facts


def _require_unlabelled(data: EvidenceData, manifest: Path) -> None:
    """Stop where a training saw anybody but the subjects of the unlabelled set."""
    with manifest.open(encoding="utf-8", newline="") as file:
        seen = {row["subject"] for row in csv.DictReader(file) if row["use"] == "train"}
    if strangers := seen - {harmless(volume.subject) for volume in data.sets.unlabelled}:
        raise ValueError(f"{manifest}: {min(strangers)} was trained on and is not unlabelled")


def _fit_pool6(data: EvidenceData, folder: Path, _say: Say, seed: int) -> tuple[Arrays, Facts]:
    trained = read_regressor(RunFolder(folder.parent / f"vgg16-seed{seed}" / "run").last)
    pool6 = trained.regressor.to(data.device).pool6
    features = network_outputs(pool6, data.judged, trained.input_spec, data.device)
    known = data.calibrating[~data.calibrating["volume"].isin(data.two)]
    classifier = fit_pool6(
        features[known["row"]], known["zone"].to_numpy(), known["subject"].to_numpy(str), seed
    )
    facts = {
        "num_features": features.shape[1],
        "C": classifier.C,
        "cv_accuracy": {f"{C:g}": accuracy for C, accuracy in classifier.cv_accuracy.items()},
    }
    return {"predicted": classifier.classify(features[data.test["row"]])}, facts


def _train_supervised(
    data: EvidenceData, _folder: Path, say: Say, config: UbrConfig
) -> tuple[Arrays, Facts]:
    volumes = data.sets.labelled
    known = data.calibrating[data.calibrating["volume"].isin([v.name for v in volumes])]
    iterations = data.config.baselines.supervised
    model = train_zone_classifier(
        volumes, _slices_of(volumes, known), known["zone"].to_numpy(), config, iterations,
        data.device, say,
    )  # fmt: skip
    logits = network_outputs(model, data.sets.test, config.input, data.device)
    facts = {"iterations": iterations, "num_slices": len(known)}
    return {"predicted": logits[data.test["row"]].argmax(axis=1)}, facts


def _train_order(
    data: EvidenceData, folder: Path, say: Say, config: UbrConfig
) -> tuple[Arrays, Facts]:
    iterations = data.config.baselines.order
    model = train_order_classifier(data.sets.unlabelled, config, iterations, data.device, say)
    write_checkpoint(folder / "weights.safetensors", {"model": model.state_dict()}, "order")
    return {}, {"iterations": iterations, "pair_accuracy": _pair_accuracy(data, model, config)}


def _pair_accuracy(data: EvidenceData, model: OrderClassifier, config: UbrConfig) -> float:
    """Return how often the order of two slices of a labelled volume is told rightly."""
    volumes = [volume for volume in data.sets.labelled if len(volume.z_mm) > 1]
    features = network_outputs(model.features, volumes, config.input, data.device)
    ends = np.cumsum([0, *(len(volume.z_mm) for volume in volumes)])
    rng = generator(config.seed, _ORDER_TEST)
    chosen = rng.integers(len(volumes), size=NUM_ORDER_TESTS)
    pairs = [ends[v] + rng.choice(ends[v + 1] - ends[v], 2, replace=False) for v in chosen]
    first, second = torch.tensor(features[np.array(pairs).T], device=data.device)
    with torch.inference_mode():
        logit = model.order(torch.relu(model.fc7(torch.cat([first, second], dim=1))))
    above = np.array([a < b for a, b in pairs])
    return float(((logit.squeeze(1).cpu().numpy() > 0) == above).mean())


def _train_position(
    data: EvidenceData, folder: Path, say: Say, config: UbrConfig, names: Sequence[str]
) -> tuple[Arrays, Facts]:
    """Fine-tune with the labelled volumes ``names``; thresholds from the same volumes."""
    weights = folder.parent / f"order-seed{config.seed}" / "weights.safetensors"
    order = OrderClassifier(start_trunk(config), config.input.size_px)
    order.load_state_dict(read_checkpoint(weights, "order")["model"])
    positions = _positions(data, names)
    known = data.calibrating[data.calibrating["volume"].isin(names)]
    known = known.assign(position=[positions[key] for key in _keys(known)]).dropna()
    used = [v for v in data.judged if v.name in set(known["volume"])]
    iterations = data.config.baselines.position
    model = train_position_regressor(
        order, used, _slices_of(used, known), known["position"].to_numpy(float), config,
        iterations, data.device, say,
    )  # fmt: skip
    answers = network_outputs(model, data.judged, config.input, data.device)
    on_known = data.calibrating[data.calibrating["volume"].isin(names)]
    thresholds = fit_thresholds(answers[on_known["row"]].astype(float), on_known["zone"].to_numpy())
    facts = {
        "iterations": iterations,
        "volumes": len(names),
        "volumes_without_border": len(names) - len(used),
        "thresholds": [thresholds.chest_abdomen, thresholds.abdomen_pelvis],
    }
    return {"predicted": thresholds.classify(answers[data.test["row"]])}, facts


def _positions(data: EvidenceData, names: Sequence[str]) -> dict[tuple[str, int], float]:
    """Return the position of the labelled slices of some volumes; NaN where no border is seen."""
    z_mm = {volume.name: np.asarray(volume.z_mm) for volume in data.judged}
    rows = {name: data.cohort.labels[name] for name in names}
    lengths = typical_lengths(
        [(r["class"].tolist(), z_mm[name][r["index_sup_to_inf"]]) for name, r in rows.items()]
    )
    positions: dict[tuple[str, int], float] = {}
    for name, r in rows.items():
        index = r["index_sup_to_inf"].to_numpy()
        known = slice_positions(r["class"].tolist(), z_mm[name][index], lengths, name)
        values = np.full(len(index), np.nan) if known is None else known
        positions |= {(name, int(i)): float(x) for i, x in zip(index, values, strict=True)}
    return positions


def _keys(table: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(table["volume"].tolist(), table["slice_index"].tolist(), strict=True))


def _slices_of(volumes: Sequence[StoredVolume], table: pd.DataFrame) -> Int[ndarray, "n 2"]:
    """Return index of the volume and of the slice for every row."""
    number = {volume.name: i for i, volume in enumerate(volumes)}
    return np.column_stack([table["volume"].map(number), table["slice_index"]]).astype(np.int64)
