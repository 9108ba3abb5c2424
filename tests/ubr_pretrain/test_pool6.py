"""Logistic regression on frozen features: the strength is chosen across patients."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from ubr_pretrain.pool6 import INVERSE_STRENGTHS, fit_pool6


def cohort(num_subjects=12, seed=0, offset=0.0):
    """Two features tell the zone; the others are the subject's own."""
    rng = np.random.default_rng(seed)
    zones = np.tile(np.repeat([0, 1, 2], 5), num_subjects)
    subjects = np.repeat([f"s{i}" for i in range(num_subjects)], 15)
    own = np.repeat(rng.normal(size=(num_subjects, 20)), 15, axis=0)
    told = np.eye(3)[zones][:, :2] + 0.3 * rng.normal(size=(len(zones), 2))
    return np.hstack([told, offset * own]).astype(np.float32), zones, subjects


def test_features_that_tell_the_zone_are_learned():
    features, zones, subjects = cohort()
    classifier = fit_pool6(features, zones, subjects)
    other, truth, _ = cohort(seed=1)
    assert (classifier.classify(other) == truth).mean() > 0.9


def test_every_accuracy_is_that_of_folds_that_share_no_subject():
    features, zones, subjects = cohort(offset=3.0)
    classifier = fit_pool6(features, zones, subjects, seed=4)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=4)
    for C in INVERSE_STRENGTHS:
        accuracies = []
        for train, test in folds.split(features, zones, subjects):
            assert not set(subjects[train]) & set(subjects[test])
            scaler = StandardScaler().fit(features[train])
            model = LogisticRegression(C=C, max_iter=5000)
            model.fit(scaler.transform(features[train]), zones[train])
            answers = model.predict(scaler.transform(features[test]))
            accuracies.append((answers == zones[test]).mean())
        assert classifier.cv_accuracy[C] == pytest.approx(np.mean(accuracies))
    best = max(classifier.cv_accuracy.values())
    assert classifier.cv_accuracy[classifier.C] == best
    assert min(C for C, a in classifier.cv_accuracy.items() if a == best) == classifier.C


def test_scale_and_offset_of_a_feature_do_not_matter():
    features, zones, subjects = cohort()
    scale = np.linspace(0.1, 50, features.shape[1], dtype=np.float32)
    plain, moved = (
        fit_pool6(features, zones, subjects),
        fit_pool6(features * scale + 7, zones, subjects),
    )
    assert (plain.classify(features) == moved.classify(features * scale + 7)).mean() > 0.99


def test_one_subject_cannot_choose():
    features, zones, _ = cohort(1)
    with pytest.raises(ValueError, match="1 labelled subjects with 3 zones"):
        fit_pool6(features, zones, np.array(["a"] * len(zones)))
