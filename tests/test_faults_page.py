"""The page of faults is what the tests say, and leaves no row out."""

from textwrap import dedent

import pytest

from tests.faults_page import PAGE, complaints, fault_tests, faults, page

CATALOGUE = """
    [V]
    title = "Volumes"
    V01 = "a file of 0 bytes"
    V02 = "a file that <ends> early"

    [N]
    title = "On the way"
    N01 = "a coffee | spilled"

    [open]
    N01 = "needs a cup"
    """

TESTS = '''
    import pytest

    big = pytest.mark.skipif(True, reason="the machine is small")
    pytestmark = [pytest.mark.real]

    def test_V01_empty():
        """It is refused
        as empty.

        More about it.
        """

    def helper():
        pytest.importorskip("timm.models")

    class TestOthers:
        @big
        def test_V01_V02_both(self, scarce):
            """Both * are refused."""
            helper()

    ROWS = {"V02": ("one.nii", "two\\u202e2"), "N01": ("three",)}
    CODES = {"E-EMPTY": 1}

    @pytest.mark.parametrize("row", ROWS)
    def test_a_table(row):
        """As told."""

    @pytest.mark.parametrize("code", CODES)
    def test_nothing_of_the_sort(code): ...
    '''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "faults.toml").write_text(dedent(CATALOGUE))
    (tmp_path / "tests" / "test_some.py").write_text(dedent(TESTS))
    (tmp_path / "tests" / "conftest.py").write_text(
        "import pytest\n@pytest.fixture\ndef scarce():\n    pytest.skip('needs a scarce thing')\n"
    )
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["real: needs the real slices"]\n'
    )
    return tmp_path


def test_page_has_each_test_in_each_of_its_rows(project):
    rows, tests = faults(project / "tests" / "faults.toml"), fault_tests(project)
    assert page(rows, tests, project).partition("tests.\n\n")[2] == dedent("""\
        ## Open

        - **N01** a coffee | spilled: needs a cup

        ## Volumes

        | row | fault | what happens | test |
        | --- | --- | --- | --- |
        | **V01** | a file of 0 bytes | It is refused as empty. *(needs the real slices)* | [empty](../tests/test_some.py "test_V01_empty") |
        |  |  | Both \\* are refused. *(needs the real slices; may be skipped: the machine is small; needs a scarce thing; needs timm)* | [both](../tests/test_some.py "test_V01_V02_both") |
        | **V02** | a file that &lt;ends> early | As told. (`one.nii`, `two\\u202e2`) *(needs the real slices)* | [a table](../tests/test_some.py "test_a_table") |
        |  |  | Both \\* are refused. *(needs the real slices; may be skipped: the machine is small; needs a scarce thing; needs timm)* | [both](../tests/test_some.py "test_V01_V02_both") |

        ## On the way

        | row | fault | what happens | test |
        | --- | --- | --- | --- |
        | **N01** | a coffee \\| spilled | *open: needs a cup* | |
        |  |  | As told. (`three`) *(needs the real slices)* | [a table](../tests/test_some.py "test_a_table") |
        """)  # noqa: E501
    assert complaints(rows, tests) == []


def test_what_keeps_the_page_from_being_whole_is_told(project):
    file = project / "tests" / "test_some.py"
    file.write_text("def test_V01_T99_x():\n    pass\n")
    tests = fault_tests(project)
    assert complaints(faults(project / "tests" / "faults.toml"), tests) == [
        "V02 (a file that <ends> early): neither a test nor a line in [open]",
        "test_some.py: test_V01_T99_x: an id that faults.toml lacks",
        "test_some.py: test_V01_T99_x: no docstring says what happens",
    ]


def test_an_open_row_that_is_no_row_is_refused(project):
    file = project / "tests" / "faults.toml"
    file.write_text(file.read_text() + 'V03 = "why not"\n')
    with pytest.raises(ValueError, match=r"\[open\] names rows that are not there: \['V03'\]"):
        faults(file)


def test_catalogue_has_every_section_without_a_hole():
    rows = faults()
    counts = {"V": 73, "L": 23, "C": 16, "T": 28, "E": 12, "S": 15, "M": 22}
    expected = [f"{part}{n:02d}" for part, last in counts.items() for n in range(1, last + 1)]
    assert [id for id in rows if id[0] != "N"] == expected


@pytest.fixture(scope="module")
def ours():
    return faults(), fault_tests()


def test_every_row_has_a_test_or_a_reason_and_every_test_a_row_and_a_sentence(ours):
    assert complaints(*ours) == []


def test_page_says_what_the_tests_say(ours):
    """Else: python -m tests.faults_page."""
    assert PAGE.read_text("utf-8") == page(*ours)
