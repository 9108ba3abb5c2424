"""The report in a real browser: switches, values along curves, sorting, slices, paper, a phone."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lesion_det.report import write_report
from tests.lesion_det.toy_report import toy_report
from tests.page_visitor import Visitor

pytestmark = pytest.mark.browser

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>{{7*7}} \u202e'
ARMS = ("random", "ubr", HOSTILE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    comparison, evidence = toy_report(
        folder / "data", ARMS, (0, 1, 2), (1.0, 0.1), (2500, 5000, 7500), num_val=16,
        title=HOSTILE, reason=HOSTILE,
    )  # fmt: skip
    return write_report(folder, comparison, evidence, np.random.default_rng(0))


def shown(visitor: Visitor, selector: str) -> int:
    return visitor.page.evaluate(
        "(s) => [...document.querySelectorAll(s)]"
        ".filter((e) => e.getClientRects().length > 0).length",
        selector,
    )


def test_a_start_is_switched_off_in_every_figure_and_slice_and_on_again(browser, file) -> None:
    with Visitor(browser, file) as visitor:
        page = visitor.page
        figures = ("learning", "topk", "froc", "labels")
        parts = [f"[data-reading={name}] [data-arms='1']" for name in figures]
        parts += ["figure [data-arms='0 1']", ".panels [data-arms='1']"]
        parts += [".panels figure[data-arms='1']"]
        before = [shown(visitor, part) for part in parts]
        assert min(before) > 0
        button = page.get_by_role("button", name="ubr", exact=True)
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "false"
        assert [shown(visitor, part) for part in parts] == [0] * len(parts)
        assert shown(visitor, "[data-reading=learning] [data-arms='0']") > 0
        # the picture of a slice is held by its first panel, which others refer to
        page.get_by_role("button", name="random", exact=True).click()
        panel = page.locator(".panels figure[data-arms='2'] > svg").first
        grey = cv2.imdecode(np.frombuffer(panel.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.median(grey[grey.shape[0] // 3 : -grey.shape[0] // 3]) > 60
        button.click()
        page.get_by_role("button", name="random", exact=True).click()
        assert [shown(visitor, part) for part in parts] == before


def test_values_are_read_off_curves_by_pointer_keys_and_touch(browser, file) -> None:
    rows = (file.parent / "recalls.csv").read_text("utf-8").splitlines()
    recalls = [float(r.split(",")[4]) for r in rows if re.match(r"ubr,\d,1,5000,", r)]
    assert len(recalls) == 3
    expected = (
        f"ubr {100 * np.mean(recalls):.1f} % ({100 * min(recalls):.1f} to {100 * max(recalls):.1f})"
    )
    with Visitor(browser, file) as visitor:
        page, curve = visitor.page, visitor.page.locator("[data-reading=learning]")
        readout = curve.locator(".readout")
        curve.locator(".canvas").focus()
        assert "iteration 7,500" in readout.inner_text()
        page.keyboard.press("ArrowLeft")
        assert "iteration 5,000" in readout.inner_text()
        assert expected in readout.inner_text()
        assert expected in curve.locator(".canvas").get_attribute("aria-valuetext")
        page.keyboard.press("Home")
        assert "iteration 2,500" in readout.inner_text()
        box = curve.locator(".cursor").bounding_box()
        page.keyboard.press("End")
        page.mouse.move(box["x"], box["y"] + box["height"] / 2)
        assert "iteration 2,500" in readout.inner_text()
        dots = curve.locator("circle.cursor-dot")
        assert dots.count() == 3
        assert HOSTILE.replace("\u202e", r"\u202e") in readout.inner_text()
        froc = page.locator("[data-reading=froc]")
        froc.locator(".canvas").focus()
        page.keyboard.press("End")
        assert "16 false positives per image" in froc.locator(".readout").inner_text()
    with Visitor(browser, file, has_touch=True, viewport={"width": 800, "height": 900}) as visitor:
        curve = visitor.page.locator("[data-reading=learning]")
        curve.scroll_into_view_if_needed()
        box = curve.locator("svg").bounding_box()
        visitor.page.touchscreen.tap(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
        assert "iteration 2,500" in curve.locator(".readout").inner_text()


def test_tables_are_sorted_by_number_and_back(browser, file) -> None:
    with Visitor(browser, file) as visitor:
        table = visitor.page.locator("#pairs ~ .scroll table").first
        column = "(t, i) => [...t.tBodies[0].rows].map((row) => row.cells[i].textContent)"
        before = table.evaluate(column, 1)
        values = sorted(float(text.replace("\N{MINUS SIGN}", "-")) for text in before)
        heading = table.get_by_role("button", name="difference, points")
        for expected, order in ((values, "ascending"), (values[::-1], "descending")):
            heading.click()
            after = [float(t.replace("\N{MINUS SIGN}", "-")) for t in table.evaluate(column, 1)]
            assert after == expected
            assert table.locator("th").nth(1).get_attribute("aria-sort") == order
        table.get_by_role("button", name="pair").click()
        names = table.evaluate(column, 0)
        assert names == sorted(names, key=str.casefold)


def test_slices_are_filtered_and_weak_detections_hidden_with_what_they_found(browser, file) -> None:
    with Visitor(browser, file) as visitor:
        page = visitor.page
        number = shown(visitor, ".slice")
        page.get_by_role("button", name="false alarms").click()
        assert 0 < shown(visitor, ".slice") == shown(visitor, ".slice[data-kind='false alarm']")
        page.get_by_role("button", name="all", exact=True).click()
        assert shown(visitor, ".slice") == number
        counts = "() => [...document.querySelectorAll('.count')].map((c) => Number(c.textContent))"
        found = page.evaluate(counts)
        detections = shown(visitor, ".panels g[data-score] rect")
        slider = page.get_by_role("slider", name="hide detections")
        slider.fill("0.7")
        assert page.inner_text("#threshold-value") == "0.70"
        strong = (
            "() => [...document.querySelectorAll('.panels g[data-score]')]"
            ".filter((g) => Number(g.dataset.score) >= 0.7).length"
        )
        assert shown(visitor, ".panels g[data-score] rect") == page.evaluate(strong) < detections
        fewer = page.evaluate(counts)
        assert sum(fewer) < sum(found)
        assert all(a <= b for a, b in zip(fewer, found, strict=True))
        assert page.locator("rect.lesion:not(.missed)").count() == sum(fewer)
        slider.focus()
        page.keyboard.press("Home")
        assert page.evaluate(counts) == found


def test_hostile_names_are_text_and_the_policy_stops_what_would_get_past(browser, file) -> None:
    with Visitor(browser, file) as visitor:
        page = visitor.page
        assert page.inner_text("h1") == HOSTILE.strip().replace("\u202e", r"\u202e")
        assert page.locator("img[src=x]").count() == 0
        assert page.locator("script").count() == 2
        assert visitor.faults == []
        page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.in = 1';"
            " document.body.append(s); }"
        )
        assert page.evaluate("() => window.in") is None
        answer = page.evaluate("() => fetch('https://example.org').then(() => 'sent', () => 'no')")
        assert answer == "no"
        assert visitor.faults
        assert all("Content Security Policy" in fault for fault in visitor.faults)
        visitor.faults.clear()


def test_paper_has_everything_and_no_controls(browser, file) -> None:
    with Visitor(browser, file) as visitor:
        page = visitor.page
        page.get_by_role("button", name="ubr", exact=True).click()
        unfolded = page.locator("details[open]").count()
        pdf = page.pdf(prefer_css_page_size=True)
        assert pdf.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 5
        assert page.locator("details[open]").count() == unfolded  # the others are folded again
        page.emulate_media(media="print")
        assert shown(visitor, "#controls, .choices, nav, .readout") == 0
        assert shown(visitor, "[data-reading=learning] [data-arms='1']") > 0
        assert shown(visitor, "details table") > 3


def test_a_phone_scrolls_no_page_sideways(browser, file) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Visitor(browser, file, **phone) as visitor:
        page = visitor.page
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390
        assert page.evaluate("() => document.body.scrollWidth") <= 390


def test_without_scripts_everything_is_there_and_nothing_useless(browser, file) -> None:
    with Visitor(browser, file, java_script_enabled=False) as visitor:
        page = visitor.page
        assert page.locator("#controls").is_hidden()
        assert page.locator("#gallery-controls").is_hidden()
        slices = page.locator(".slice")
        assert slices.count() > 4
        assert all(slice.is_visible() for slice in slices.all())
        assert page.locator("[data-reading=learning] svg").is_visible()
        page.locator("summary", has_text="every tensor").first.click()
        assert page.locator("details[open] table").first.is_visible()
