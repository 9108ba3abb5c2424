"""Tables of slice classes: read as one, refused in one line."""

import pytest

from ubr_pretrain import phantom
from ubr_pretrain.slice_classes import BODY_PARTS, OTHER, read_slice_classes


def written(path, *rows, header="volume,index_sup_to_inf,class"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_classes_are_those_of_the_phantoms():
    assert BODY_PARTS == phantom.BODY_PARTS


def test_two_tables_are_read_as_one(tmp_path):
    a = written(tmp_path / "a.csv", "007,0,head_neck", "007,1,chest")
    b = written(
        tmp_path / "b.csv", "x,3,pelvis,ignored", header=f"{'volume,index_sup_to_inf,class'},note"
    )
    table = read_slice_classes([a, b])
    assert table["volume"].tolist() == ["007", "007", "x"]
    assert table["zone"].tolist() == [OTHER, 0, 2]
    assert table["index_sup_to_inf"].tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["a,0,Chest"], "class 'Chest' is not one of"),
        (["a,-1,chest"], "'-1' is no slice number"),
        (["a,1.5,chest"], "'1.5' is no slice number"),
        (["a,1,chest", "a,1,abdomen"], "slice 1 of a is named twice"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        read_slice_classes([written(tmp_path / "t.csv", *rows)])


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such table"):
        read_slice_classes([tmp_path / "absent.csv"])
    with pytest.raises(ValueError, match="lacks the column class"):
        read_slice_classes([written(tmp_path / "t.csv", "a,0", header="volume,index_sup_to_inf")])
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"bytes.csv: no table to read"):
        read_slice_classes([tmp_path / "bytes.csv"])
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match=r"empty.csv: no table to read"):
        read_slice_classes([tmp_path / "empty.csv"])
