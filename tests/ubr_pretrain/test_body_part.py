"""The proposed body part: words of the standard, and the probability of the same word."""

import numpy as np
import pytest
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from ubr_pretrain.body_part import REGIONS, SOLE, propose_body_part
from ubr_pretrain.landmarks import ZONE_NAMES


def propose(top, bottom, sd=0.01, num=60):
    coordinates = np.linspace(top, bottom, num)
    return propose_body_part(coordinates, np.full(num, sd), np.arange(num) * 4.0)


def test_codes_are_those_of_the_standards_common_anatomic_regions():
    known = {
        code: meaning
        for name in cid_concepts[4031]["SCT"]
        for code, (meaning, _) in concepts["SCT"][name].items()
    }
    for term, (code, meaning, _, _) in REGIONS.items():
        assert known[code] == meaning
        assert len(term) <= 16  # a CS
        assert term.isupper()
        assert term.isalpha()


@pytest.mark.parametrize("term", REGIONS)
def test_scan_of_exactly_a_region_is_called_by_its_name(term):
    code, meaning, top, bottom = REGIONS[term]
    part = propose(top, bottom)
    assert (part.body_part_examined, part.code_value, part.code_meaning) == (term, code, meaning)
    assert part.confidence == 1.0


@pytest.mark.parametrize(
    ("top", "bottom", "term"),
    [
        (106, 32, "CHEST"),  # to the adrenals
        (60, -48, "ABDOMENPELVIS"),
        (58, -4, "ABDOMEN"),
        (107, -55, "CHESTABDPELVIS"),
        (160, 85, "HEADNECK"),
        (155, -90, "WHOLEBODY"),
        (168, -230, "WHOLEBODY"),
        (3, -52, "PELVIS"),
        (-60, -95, "LOWERLIMB"),
    ],
)
def test_usual_scans_get_their_usual_names(top, bottom, term):
    assert propose(top, bottom).body_part_examined == term
    assert propose(bottom, top).body_part_examined == term  # whichever way the slices run


@pytest.mark.parametrize(("top", "bottom", "sd"), [(90, 8, 8.0), (60, -15, 6.0), (130, 60, 12.0)])
def test_confidence_is_the_share_of_draws_with_the_same_name(top, bottom, sd):
    part = propose(top, bottom, sd)
    rng = np.random.default_rng(0)
    draws = [
        propose(top + a, bottom + b, num=2).body_part_examined
        for a, b in rng.normal(0, sd, (1500, 2))
    ]
    share = np.mean([name == part.body_part_examined for name in draws])
    assert part.confidence == pytest.approx(share, abs=0.05)
    assert part.confidence < propose(top, bottom, sd / 4).confidence + 1e-9


def test_covered_is_the_share_of_every_zone():
    part = propose(110, -20)
    bounds = [168, 100, 56, 0, -45, SOLE]
    grid = np.linspace(-20, 110, 130001)
    for name, upper, lower in zip(ZONE_NAMES, bounds, bounds[1:], strict=False):
        length = np.mean((grid <= upper) & (grid >= lower)) * 130
        assert part.covered[name] == pytest.approx(length / (upper - lower), abs=0.002)


def test_stray_slices_do_not_change_the_name():
    coordinates = np.linspace(100, 38, 50)
    coordinates[[10, 30]] = [-80, 160]
    part = propose_body_part(coordinates, np.full(50, 3.0), np.arange(50) * 5.0)
    assert part.body_part_examined == "CHEST"


def test_curve_in_disorder_is_less_sure_than_one_in_order():
    coordinates = np.linspace(100, 38, 50)
    mixed = np.random.default_rng(0).permutation(coordinates)
    sure, unsure = (
        propose_body_part(some, np.full(50, 0.1), np.arange(50) * 5.0)
        for some in (coordinates, mixed)
    )
    assert sure.confidence == 1.0
    assert unsure.confidence < sure.confidence


def test_one_slice_has_a_name_and_none_has_not():
    part = propose_body_part(np.array([80.0]), np.array([5.0]), np.zeros(1))
    assert part.body_part_examined == "CHEST"
    with pytest.raises(ValueError, match="at least one slice"):
        propose_body_part(np.zeros(0), np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="finite"):
        propose_body_part(np.array([np.nan]), np.ones(1), np.zeros(1))


@pytest.mark.parametrize(
    ("coordinate", "term"),
    [(80.0, "CHEST"), (47.0, "ABDOMEN"), (20.0, "ABDOMEN"), (-30.0, "PELVIS")],
)
def test_a_single_slice_is_named_after_where_it_lies(coordinate: float, term: str) -> None:
    proposed = propose_body_part(np.array([coordinate]), np.array([2.0]), np.zeros(1))
    assert proposed.body_part_examined == term
    assert proposed.confidence > 0.8
