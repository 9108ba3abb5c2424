"""Scores of a scan in two lines, with the weights that ship in the package or one's own.

    >>> from ubr_pretrain import score_volume                    # doctest: +SKIP
    >>> score_volume("scan.nii.gz").to_table()                   # doctest: +SKIP

Shapes:
    z, y, x: as in ``ct``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from ubr_pretrain.anomalies import expected_step, find_anomalies
from ubr_pretrain.array_volume import array_to_volume, sitk_to_volume
from ubr_pretrain.body_part import propose_body_part
from ubr_pretrain.calibration import Calibration, read_calibration
from ubr_pretrain.checkpoint import file_sha256
from ubr_pretrain.config import first_problem
from ubr_pretrain.ct import Volume, Window
from ubr_pretrain.doubts import with_doubts
from ubr_pretrain.early_scores import EarlyScores
from ubr_pretrain.images import SOFT_TISSUE, CtImage, array_to_image, read_image
from ubr_pretrain.network_backend import Backend, ScoreNetwork, build_network
from ubr_pretrain.pretrained import (
    CALIBRATION,
    NUM_VIEWS,
    SCORER,
    WEIGHTS_FOLDER,
    read_pretrained,
)
from ubr_pretrain.regressor import TrainedRegressor, read_regressor
from ubr_pretrain.runtime import start_ranks
from ubr_pretrain.scans import hash_of
from ubr_pretrain.scored_volume import ScoredImage, ScoredVolume
from ubr_pretrain.scoring import read_curve, smooth_scores
from ubr_pretrain.slice_scores import SliceScores, anomalies_of_read
from ubr_pretrain.sparse_volume import SparseVolume
from ubr_pretrain.view_scores import VIEWS, mean_and_sd, score_part
from ubr_pretrain.volumes import SCORING_TILT_DEG, read_volume

if TYPE_CHECKING:
    import SimpleITK as sitk

FILE_SUFFIX = re.compile(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd)$", re.IGNORECASE)


@dataclass(frozen=True)
class Scorer:
    """A regressor on its device, and what its scores mean.

    Attributes:
        trained: the regressor.
        calibration: of this regressor; None: scores only, no body coordinate.
        network: that runs it.
        num_views: views of a slice that are averaged; 1: the slice alone, no uncertainty.
    """

    trained: TrainedRegressor
    calibration: Calibration | None
    network: ScoreNetwork
    num_views: int = NUM_VIEWS

    @cached_property
    def watch(self) -> EarlyScores:
        """Whom ``VolumeEntry.read`` may tell of slices, so that they are scored as they come."""
        spec = self.trained.input_spec
        return EarlyScores(self.network, partial(score_part, self.network, spec, self.num_views))

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.network.device

    def score_volume(self, volume: Volume, name: str) -> ScoredVolume:
        """Score every slice of a volume and say what the scores mean.

        Anomalies are looked for in the scores of the slices alone: smoothing would hide them. Of a
        ``SparseVolume`` they are looked for in the slices that were read; gaps in all.
        """
        alone, views_sd = self._scores(volume.hu, volume.spacing_mm_zyx[1:])
        read = SliceScores(alone, smooth_scores(alone, volume.z_mm, views_sd), views_sd)
        step_mm = volume.spacing_mm_zyx[0]
        anomalies = find_anomalies(alone, volume.z_mm, step_mm, self.calibration, views_sd)
        every, z_mm, header_step_mm, read_index = read, volume.z_mm, step_mm, None
        uncertainty_scale = 1.0 if self.calibration is None else self.calibration.uncertainty_scale
        if isinstance(volume, SparseVolume):
            every = read.of_every_slice(volume, uncertainty_scale)
            z_mm, header_step_mm = volume.every_z_mm, volume.step_mm
            read_index = tuple(volume.read_index.tolist())
            anomalies = anomalies_of_read(anomalies, volume)
        scored = ScoredVolume(
            name=name,
            z_mm=z_mm,
            spacing_mm_zyx=(header_step_mm, *volume.spacing_mm_zyx[1:]),
            scores=every.smooth,
            scores_alone=every.alone,
            scores_sd=every.sd,
            curve=read_curve(every.smooth, z_mm),
            anomalies=anomalies,
            notes=volume.notes,
            read_index=read_index,
        )
        if self.calibration is None:
            return scored
        coordinate = self.calibration.coordinate(every.smooth)
        coordinate_sd = self.calibration.coordinate_sd(every.smooth, every.sd)
        expected = expected_step(alone, volume.z_mm, step_mm, self.calibration)
        return replace(
            scored,
            scores_sd=None if every.sd is None else every.sd * uncertainty_scale,
            coordinate=coordinate,
            coordinate_sd=coordinate_sd,
            zones=tuple(self.calibration.zones(every.smooth)),
            body_part=propose_body_part(coordinate, coordinate_sd, z_mm),
            expected_step_mm=None
            if expected is None
            else expected.step_mm * (header_step_mm / step_mm),
            landmarks=self.calibration.locate(every.smooth, z_mm),
        )

    def score_image(self, image: CtImage, name: str) -> ScoredImage:
        """Score one slice."""
        scores, views_sd = self._scores(image.hu[np.newaxis], image.pixel_mm_yx)
        scored = ScoredImage(
            name=name,
            pixel_mm_yx=image.pixel_mm_yx,
            score=float(scores[0]),
            score_sd=None if views_sd is None else float(views_sd[0]),
            notes=image.notes,
        )
        if self.calibration is None:
            return scored
        scale = self.calibration.uncertainty_scale
        return replace(
            scored,
            score_sd=None if views_sd is None else float(views_sd[0]) * scale,
            coordinate=float(self.calibration.coordinate(scores)[0]),
            coordinate_sd=float(self.calibration.coordinate_sd(scores, views_sd)[0]),
            zone=self.calibration.zones(scores)[0],
        )

    def _scores(
        self, hu: NDArray[np.int16], pixel_mm_yx: tuple[float, float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        return mean_and_sd(self.watch.scores(hu, pixel_mm_yx))


def read_scorer(
    checkpoint: Path | None = None,
    calibration: Path | None = None,
    *,
    device: str = "auto",
    num_views: int = NUM_VIEWS,
    backend: Backend = "auto",
    threads: int | None = None,
) -> Scorer:
    """Read the scorer of the package, or the user's own.

    Args:
        checkpoint: of train_ubr.py; None: the weights of the package.
        calibration: of calibrate_scorer.py, for these weights; None: that of the package where the
            weights are, else none.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        num_views: as in ``Scorer``.
        backend: which library runs the network; "auto": PyTorch, whatever is installed.
        threads: that score at the same time; None: as many as PyTorch would use.

    Raises:
        ValueError: weights or calibration that cannot be used, no such device, or a backend that
            is not there or disagrees.
    """
    if not 1 <= num_views <= len(VIEWS):
        raise ValueError(f"num_views {num_views} must be 1 to {len(VIEWS)}")
    meaning: Calibration | None = None
    if checkpoint is None and calibration is None:
        pretrained = read_pretrained()
        trained, meaning = pretrained.trained, pretrained.calibration
    else:
        trained = read_regressor(checkpoint or WEIGHTS_FOLDER / SCORER)
        if calibration is not None:
            meaning = read_calibration(calibration)
    with start_ranks(device) as ranks:
        network = build_network(trained, ranks.device, backend, threads)
        return Scorer(trained, meaning, network, num_views)


def scorer_identity(
    scorer: Scorer, checkpoint: Path | None, calibration: Path | None
) -> dict[str, Any]:
    """Return, in plain values, on what the scores of a scorer depend.

    PyTorch is not named: it is what scored before there were other back-ends.
    """
    backend = scorer.network.backend
    if checkpoint is None:
        calibration = calibration or WEIGHTS_FOLDER / CALIBRATION
    return {
        "checkpoint_sha256": file_sha256(checkpoint or WEIGHTS_FOLDER / SCORER),
        "calibration_sha256": None if calibration is None else file_sha256(calibration),
        "num_views": scorer.num_views,
        "input_spec": scorer.trained.input_spec.model_dump(mode="json"),
        "provenance": scorer.trained.provenance.model_dump(mode="json"),
    } | ({} if backend == "torch" else {"backend": backend})


def score_volume(
    source: Path | str | NDArray[Any] | sitk.Image | Volume,
    *,
    spacing_mm_zyx: tuple[float, float, float] | None = None,
    checkpoint: Path | str | None = None,
    calibration: Path | str | None = None,
    device: str = "auto",
    num_views: int = NUM_VIEWS,
) -> ScoredVolume:
    """Score every axial slice of one CT scan.

    Args:
        source: a file, a DICOM folder or tree, or a folder of DeepLesion slices; an array of HU
            [z, y, x] with slices superior -> inferior, rows anterior -> posterior, columns the
            patient's right -> left; a SimpleITK image of HU, which is turned by its own direction;
            or a ``Volume``.
        spacing_mm_zyx: slice interval, row height, column width: needed for an array, and used for
            a file that states none.
        checkpoint: weights of one's own; None: those of the package.
        calibration: of these weights; see ``read_scorer``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        num_views: views of a slice that are averaged; 1: the slice alone, no uncertainty.

    Raises:
        VolumeRefused: the scan cannot be read without the risk of a wrong result.
        ValueError: the weights cannot be used, or an array came without spacing.
    """
    scorer = read_scorer(_path(checkpoint), _path(calibration), device=device, num_views=num_views)
    volume, name = _to_volume(source, spacing_mm_zyx, scorer.watch)
    return scorer.score_volume(volume, name)


def score_image(
    source: Path | str | NDArray[Any],
    *,
    pixel_mm: float | None = None,
    window_hu: tuple[float, float] | None = None,
    checkpoint: Path | str | None = None,
    calibration: Path | str | None = None,
    device: str = "auto",
    num_views: int = NUM_VIEWS,
) -> ScoredImage:
    """Score one axial slice: PNG, JPEG or DICOM file, or an array [y, x].

    Args:
        source: a file; or an array, uint8 for windowed grey values, any other number for HU; rows
            anterior -> posterior, columns the patient's right -> left.
        pixel_mm: side of a pixel where neither the file nor a ``DL_info*.csv`` beside it states
            one; None: such that the picture is 410 mm wide.
        window_hu: HU of the grey values 0 and 255; None: -175..275, soft tissue.
        checkpoint: as in ``score_volume``.
        calibration: as in ``score_volume``.
        device: as in ``score_volume``.
        num_views: as in ``score_volume``.

    Raises:
        VolumeRefused: coloured, damaged, of one value, or not one CT slice.
        ValueError: the weights cannot be used, or the window is empty or no range of HU.
    """
    window = SOFT_TISSUE
    if window_hu is not None:
        try:
            window = Window(lower_hu=window_hu[0], upper_hu=window_hu[1])
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error
    if isinstance(source, (str, Path)):
        image, name = read_image(Path(source), window, pixel_mm), Path(source).stem
    else:
        image, name = array_to_image(source, window, pixel_mm), "array"
    scorer = read_scorer(_path(checkpoint), _path(calibration), device=device, num_views=num_views)
    return scorer.score_image(image, name)


def _to_volume(
    source: Path | str | NDArray[Any] | sitk.Image | Volume,
    spacing_mm_zyx: tuple[float, float, float] | None,
    watch: EarlyScores,
) -> tuple[Volume, str]:
    if isinstance(source, Volume):
        known = isinstance(source, SparseVolume)  # of a file, which was judged as a whole
        return source if known else with_doubts(source), "volume"
    if "SimpleITK" in sys.modules:  # else nobody has an image of it
        import SimpleITK as sitk

        if isinstance(source, sitk.Image):
            return sitk_to_volume(source), "image"
    if isinstance(source, (str, Path)):
        rules: dict[str, Any] = {"allow_gaps": True, "max_tilt_deg": SCORING_TILT_DEG}
        if spacing_mm_zyx is not None:
            rules["spacing_mm_zyx"] = spacing_mm_zyx
        return read_volume(source, watch=watch, **rules), _name(Path(source))
    if spacing_mm_zyx is None:
        raise ValueError("an array knows no spacing: give spacing_mm_zyx (slices, rows, columns)")
    return array_to_volume(source, spacing_mm_zyx), "array"


def _name(path: Path) -> str:
    """Return the stem of a file; a folder or a DICOM file may be called after a patient."""
    stem = FILE_SUFFIX.sub("", path.name)
    return stem if stem != path.name else f"scan-{hash_of(str(path.absolute()))}"


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)
