"""The page of a scan in a real browser: moving along the curve, by mouse, finger and keyboard."""

import re
from pathlib import Path

import pytest

from tests.page_visitor import Visitor
from tests.ubr_pretrain.scan_pages import (
    HOSTILE,
    STEP_MM,
    grey_of,
    grey_volume,
    scored,
    uncalibrated,
)
from ubr_pretrain.ct import Volume
from ubr_pretrain.scan_page import write_scan_page

pytestmark = pytest.mark.browser


class Reader(Visitor):
    """Somebody who moves along a scan."""

    def __init__(self, browser, file: Path, **context) -> None:
        super().__init__(browser, file, **context)
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('img.sheet')].every((sheet) => sheet.complete)"
        )

    def read(self, field: str) -> str:
        return self.page.inner_text(f"#readout [data-of={field}]")

    @property
    def slice(self) -> int:
        shown = int(self.read("slice").split()[0])
        assert self.page.get_attribute("#stage", "aria-valuenow") == str(shown)
        return shown

    @property
    def grey(self) -> float:
        """Brightness in the middle of the axial picture."""
        return self.page.evaluate(
            "() => { const shown = document.getElementById('axial');"
            " const pen = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });"
            " pen.drawImage(shown, shown.width / 2, shown.height / 2, 1, 1, 0, 0, 1, 1);"
            " return pen.getImageData(0, 0, 1, 1).data[0]; }"
        )

    def height_of(self, volume: Volume, index: int, selector: str) -> tuple[float, float]:
        """Return where on the screen a slice is drawn inside an element that spans the scan."""
        box = self.page.locator(selector).first.bounding_box()
        assert box is not None
        height_mm = float(volume.z_mm[-1]) + STEP_MM
        share = (float(volume.z_mm[index]) + STEP_MM / 2) / height_mm
        return box["x"] + box["width"] / 2, box["y"] + share * box["height"]

    def shows(self, volume: Volume, index: int, window: str = "soft tissue") -> bool:
        return self.slice == index and abs(self.grey - grey_of(volume, index, window)) <= 6


@pytest.fixture(scope="module")
def volume() -> Volume:
    return grey_volume()


@pytest.fixture(scope="module")
def file(tmp_path_factory, volume) -> Path:
    path = tmp_path_factory.mktemp("pages") / "page.html"
    write_scan_page(volume, scored(volume, HOSTILE), path)
    return path


def test_slice_and_readout_follow_the_pointer_along_curve_and_views(browser, file, volume) -> None:
    with Reader(browser, file) as reader:
        assert reader.shows(volume, 44)  # the middle of the scan, before anybody moved
        truth = scored(volume)
        assert truth.coordinate is not None
        for selector in ("#curve .frame", ".view", ".view >> nth=1"):
            for index in (0, 17, 63, 64, 89):
                reader.page.mouse.move(*reader.height_of(volume, index, selector))
                assert reader.shows(volume, index), (selector, index)
                assert reader.read("z") == f"{STEP_MM * index:.1f} mm"
                score, spread = reader.read("score").replace("\N{MINUS SIGN}", "-").split(" ± ")
                assert float(score) == pytest.approx(truth.scores[index], abs=0.006)
                assert float(spread) == 0.25
                coordinate = reader.read("coordinate").replace("\N{MINUS SIGN}", "-").split()[0]
                assert float(coordinate) == pytest.approx(truth.coordinate[index], abs=0.06)
                assert truth.zones is not None
                assert reader.read("zone") == truth.zones[index]
                line = reader.page.locator("#curve .cursor").bounding_box()
                wanted = reader.height_of(volume, index, "#curve .frame")[1]
                assert line["y"] + line["height"] / 2 == pytest.approx(wanted, abs=1.5)
        reader.page.mouse.move(*reader.height_of(volume, 25, "#curve .frame"))
        assert reader.read("anomalies") == "NONLINEAR, SPACING_MISMATCH"


def test_every_slice_can_be_reached_by_keyboard(browser, file, volume) -> None:
    with Reader(browser, file) as reader:
        keys = reader.page.keyboard
        keys.press("Tab")
        assert reader.page.evaluate("() => document.activeElement.id") == "stage"
        for key, index in (
            ("Home", 0), ("ArrowUp", 0), ("ArrowDown", 1), ("ArrowRight", 2), ("PageDown", 12),
            ("ArrowLeft", 11), ("PageUp", 1), ("End", 89), ("ArrowDown", 89), ("PageUp", 79),
        ):  # fmt: skip
            keys.press(key)
            assert reader.shows(volume, index), key
        spoken = reader.page.get_attribute("#stage", "aria-valuetext")
        assert spoken.startswith("slice 79 of 0–89, z 316.0 mm, score 7.53 ± 0.25, coordinate")  # noqa: RUF001
        assert "zone abdomen" in spoken
        reader.page.mouse.click(*reader.height_of(volume, 10, ".view"))
        keys.press("ArrowDown")
        assert reader.shows(volume, 11)


def test_a_finger_moves_the_slice_on_the_curve_and_by_a_tap_on_a_view(browser, file, volume):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with Reader(browser, file, **phone) as reader:
        page = reader.page
        page.locator("#curve").scroll_into_view_if_needed()
        page.touchscreen.tap(*reader.height_of(volume, 30, "#curve .frame"))
        assert reader.shows(volume, 30)
        tools = reader.context.new_cdp_session(page)
        x, y = reader.height_of(volume, 30, "#curve .frame")
        scrolled = page.evaluate("() => window.scrollY")
        tools.send(
            "Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
        )
        for index in range(32, 51, 2):
            x, y = reader.height_of(volume, index, "#curve .frame")
            tools.send(
                "Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y}]}
            )
        tools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait_for_function("() => document.getElementById('stage').ariaValueNow === '50'")
        assert reader.shows(volume, 50)
        assert page.evaluate("() => window.scrollY") == scrolled
        page.wait_for_timeout(500)  # at once it would be the second half of a double tap
        page.touchscreen.tap(*reader.height_of(volume, 40, ".view"))
        page.wait_for_function("() => document.getElementById('stage').ariaValueNow === '40'")
        assert reader.shows(volume, 40)


def test_a_click_on_an_anomaly_or_a_landmark_jumps_there_and_windows_switch(browser, file, volume):
    with Reader(browser, file) as reader:
        page = reader.page
        page.click("#lists button:has-text('NONLINEAR')")
        assert reader.shows(volume, 20)
        page.click("#lists button:has-text('liver dome')")
        assert reader.shows(volume, 18)
        page.click("button:has-text('lung')")
        assert reader.shows(volume, 18, "lung")
        assert page.get_attribute("button:has-text('lung')", "aria-pressed") == "true"
        assert page.get_attribute("button:has-text('soft tissue')", "aria-pressed") == "false"


def test_a_hostile_name_is_text_and_the_policy_stops_what_would_get_past(browser, file) -> None:
    with Reader(browser, file) as reader:
        assert reader.page.inner_text("h1") == HOSTILE
        assert reader.page.title() == HOSTILE
        assert reader.faults == []
        reader.page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.in = 1';"
            " document.body.append(s); }"
        )
        assert reader.page.evaluate("() => window.in") is None
        answer = reader.page.evaluate(
            "() => fetch('https://example.org').then(() => 'sent', () => 'stopped')"
        )
        assert answer == "stopped"
        assert reader.faults
        assert all("Content Security Policy" in fault for fault in reader.faults)
        reader.faults.clear()


@pytest.mark.parametrize("num_slices", [1, 2, 90])
def test_an_uncalibrated_or_a_single_slice_page_works_as_well(browser, tmp_path, num_slices):
    volume = grey_volume(num_slices, gap_after=50 if num_slices > 50 else None)
    write_scan_page(volume, uncalibrated(volume), tmp_path / "page.html")
    with Reader(browser, tmp_path / "page.html") as reader:
        reader.page.focus("#stage")
        for key, index in (("Home", 0), ("End", num_slices - 1)):
            reader.page.keyboard.press(key)
            assert reader.shows(volume, index)
        assert "±" not in reader.read("score")
        assert reader.page.locator("#readout [data-of=coordinate]").count() == 0
        assert "NaN" not in reader.page.inner_html("#stage")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_light_and_dark_and_prints_light(browser, file, scheme) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme}
    with Reader(browser, file, **phone) as reader:
        page = reader.page
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        tight = (
            "() => [...document.querySelectorAll('#readout dd')]"
            ".filter((field) => field.scrollWidth > field.clientWidth + 1).length"
        )
        assert page.evaluate(tight) == 0
        ground = "() => getComputedStyle(document.body).backgroundColor"
        brightness = sum(map(int, re.findall(r"\d+", page.evaluate(ground))))
        assert (brightness > 600) == (scheme == "light")
        page.evaluate("() => document.getElementById('curve').scrollIntoView()")
        box = page.locator("#axial").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < 100  # the slice stays in sight of the finger
        assert page.pdf().startswith(b"%PDF")
        page.emulate_media(media="print")
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
