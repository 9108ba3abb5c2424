"""Tables of landmarks, and what they establish of the zones."""

import csv

import pytest

from ubr_pretrain.landmarks import LANDMARK_COORDINATES, LandmarkMark, known_zones, read_landmarks
from ubr_pretrain.phantom_subject import LANDMARKS as PHANTOM_LANDMARKS

HEAD = "volume,landmark,index_sup_to_inf,uncertainty_slices\n"


def test_names_are_those_of_the_phantoms_in_the_order_of_the_body():
    assert list(LANDMARK_COORDINATES) == list(PHANTOM_LANDMARKS)
    places = list(LANDMARK_COORDINATES.values())
    assert places == sorted(places, reverse=True)


def test_coordinates_are_near_those_of_the_synthetic_body():
    apex, crest = PHANTOM_LANDMARKS["lung_apex"][1], PHANTOM_LANDMARKS["iliac_crest"][1]
    for name, (_, height_mm) in PHANTOM_LANDMARKS.items():
        assert abs(100 * (crest - height_mm) / (crest - apex) - LANDMARK_COORDINATES[name]) < 3.5


def test_uncertainty_may_be_missing(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("volume,landmark,index_sup_to_inf\n007,carina,12\n", "utf-8")
    assert read_landmarks(path) == (LandmarkMark("007", "carina", 12, 1.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume,landmark\n", "lacks the column index_sup_to_inf"),
        (HEAD + "a,navel,1,1\n", "line 2: landmark 'navel'"),
        (HEAD + "a,carina,1,1\na,carina,2,1\n", "line 3: carina of a was given before"),
        (HEAD + "a,carina,1.5,1\n", "not a whole number"),
        (HEAD + "a,carina,-1,1\n", "index_sup_to_inf -1"),
        (HEAD + "a,carina,x,1\n", "index_sup_to_inf 'x'"),
        (HEAD + "a,carina,1,\n", "uncertainty_slices nan"),
        (HEAD + ",carina,1,1\n", "volume or landmark is empty"),
        ("", "no table to read"),
    ],
)
def test_bad_table_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "l.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message) as refusal:
        read_landmarks(path)
    assert str(path) in str(refusal.value)


def test_zones_between_landmarks_stay_open():
    marks = [LandmarkMark("a", "carina", 2), LandmarkMark("a", "kidney_upper_pole", 5)]
    assert known_zones(marks, 8) == [0, 0, 0, None, None, 1, None, None]
    assert known_zones([], 2) == [None, None]


@pytest.mark.real
def test_zones_from_landmarks_are_those_that_people_named(real_ct):
    marks = read_landmarks(real_ct / "landmarks.csv")
    named: dict[str, list[int]] = {}
    with (real_ct / "slice_classes.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            zone = {"head_neck": 0, "chest": 0, "abdomen": 1}.get(row["class"], 2)
            named.setdefault(row["volume"], []).append(zone)
    assert len(named) == 10
    for volume, zones in named.items():
        known = known_zones([m for m in marks if m.volume == volume], len(zones))
        assert [z for z in known if z is not None] == [
            z for z, k in zip(zones, known, strict=True) if k is not None
        ], volume
        assert any(z is not None for z in known)
