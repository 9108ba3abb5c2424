"""Whatever text reaches a page is text: no tag, no attribute, no script, no turned line."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from lesion_det.report import render_html
from lesion_det.ubr_chapter import EmbeddedImage, UbrChapter
from tests.lesion_det.toy_report import tiny_evidence, tiny_record
from tests.ubr_pretrain.scan_pages import N, grey_volume, scored
from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.body_part import BodyPart
from ubr_pretrain.scan_page import scan_page
from ubr_pretrain.web_page import page_environment, visible

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{7*7}}{% raw %}",
    "]]></style></svg><svg onload=alert(1)>",
    "<!--</title><iframe srcdoc=x>-->",
    "\u202egnp.exe\u2066",
    "&lt;b&gt;&amp;#60;script&#62;",
    "javascript:alert(1)//\u2028\x00\x1b[31m",
)
TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0, 0x1B)}
PARTS = st.sampled_from(HOSTILE) | st.text(max_size=6)
TEXTS = st.lists(PARTS, min_size=1, max_size=3).map(lambda parts: "x" + "".join(parts))

FOUND_AT_ONCE = (Phase.explicit, Phase.generate)  # a page takes a second: nothing is shrunk

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # a font need not have every letter


class Outline(HTMLParser):
    """The tags of a page with the names of their attributes, and what was read as comment."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.loaded: list[str] = []
        self.comments: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def require_like(page: str, plain: str) -> None:
    """Require the same tags, attributes and comments as on the page of plain texts."""
    ours, theirs = Outline(page), Outline(plain)
    assert ours.tags == theirs.tags
    assert ours.comments == theirs.comments
    assert all(link.startswith(("data:image/", "#")) for link in ours.loaded)
    assert not TURNING & set(page)


def a_report(text: str) -> str:
    picture = EmbeddedImage(text, "data:image/png;base64,AAAA")
    ubr = UbrChapter(
        pictures=(picture,), facts=(text,), curves=(picture,), num_curves=1,
        scores=({"volume": text, "code": text, "cause": text},),
    )  # fmt: skip
    evidence = replace(tiny_evidence(text), ubr=ubr)
    return render_html(tiny_record(text), evidence, np.random.default_rng(0))


def a_scan_page(text: str) -> str:
    volume = grey_volume()
    found = replace(
        scored(volume, text),
        notes=(text,),
        zones=(text,) * N,
        anomalies=(Anomaly("GAP", 3, 4, None, text),),
        body_part=BodyPart(text, text, text, 0.5, {text: 0.5}),
    )
    return scan_page(volume, found)


@pytest.fixture(scope="module")
def plain() -> dict[str, str]:
    return {"report": a_report("random"), "scan": a_scan_page("random")}


@settings(max_examples=2, phases=FOUND_AT_ONCE)
@given(text=TEXTS)
@example("".join(HOSTILE))
def test_S04_no_text_changes_the_structure_of_the_report(plain: dict[str, str], text: str) -> None:
    """Titles, arms, reasons, sources, versions, captions, volumes and causes: any text leaves tags,
    attributes and links of report.html as they are; characters that turn a line are written out."""
    require_like(a_report(text), plain["report"])


@settings(max_examples=5, phases=FOUND_AT_ONCE)
@given(text=TEXTS)
@example("".join(HOSTILE))
def test_S04_no_text_changes_the_structure_of_a_scans_page(
    plain: dict[str, str], text: str
) -> None:
    """The same for names, notes, zones, messages and body parts on the page of a scan."""
    require_like(a_scan_page(text), plain["scan"])


@given(TEXTS)
def test_S04_no_template_can_be_escaped(text: str) -> None:
    """Every page of the project is made in one environment: what is put into an element, an
    attribute or the data of a script comes back out as text; what turns a line is written out."""
    environment = page_environment("ubr_pretrain")
    template = environment.from_string(
        '<p title="{{ t }}">{{ t }}</p><script type="application/json">{{ d | tojson }}</script>'
    )
    page = template.render(t=text, d={"t": text, text: (text,)})
    assert [tag for tag, _ in Outline(page).tags] == ["p", "script"]
    assert Outline(page).tags[0][1] == ("title",)
    data = page.partition('json">')[2].removesuffix("</script>")
    assert "<" not in data
    assert json.loads(data) == {"t": visible(text), visible(text): [visible(text)]}


def test_S07_a_page_of_no_numbers_is_refused() -> None:
    """The data of a page never holds NaN."""
    template = page_environment("ubr_pretrain").from_string("{{ d | tojson }}")
    with pytest.raises(ValueError, match="JSON"):
        template.render(d=[float("nan")])
