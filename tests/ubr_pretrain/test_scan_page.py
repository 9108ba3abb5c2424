"""The page of a scan: its structure always, and in a real browser where one is installed."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.body_part import BodyPart
from ubr_pretrain.calibration import LocatedLandmark
from ubr_pretrain.ct import Volume
from ubr_pretrain.scan_page import coordinate_ticks, csp_hash, scan_page, write_scan_page
from ubr_pretrain.scan_views import SLICE_WINDOWS, body_box, body_views, slice_sheets
from ubr_pretrain.scored_volume import ScoredVolume
from ubr_pretrain.scoring import read_curve
from ubr_pretrain.volumes import read_volume

N, STEP_MM = 90, 4.0
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & co"


def grey_volume(num_slices: int = N, gap_after: int | None = None) -> Volume:
    """Return a volume whose slices are uniform, each brighter than the one above."""
    level_hu = np.linspace(-150, 230, num_slices).astype(np.int16)
    hu = np.broadcast_to(level_hu[:, None, None], (num_slices, 40, 50)).copy()
    z_mm = np.arange(num_slices) * STEP_MM
    if gap_after is not None:
        z_mm[gap_after + 1 :] += 40.0
    return Volume(hu, (STEP_MM, 5.0, 6.0), z_mm, "/archive/DOE^JANE/scan.nii")


def grey_of(volume: Volume, index: int, window: str = "soft tissue") -> float:
    """Return how bright a slice is on the page, 0..255."""
    limits = SLICE_WINDOWS[window]
    share = (int(volume.hu[index, 0, 0]) - limits.lower_hu) / (limits.upper_hu - limits.lower_hu)
    return 255 * min(max(share, 0), 1)


def scored(volume: Volume, name: str = "scan") -> ScoredVolume:
    z_mm, last = volume.z_mm, volume.num_slices - 1
    scores = z_mm / 30 - 3 + 0.05 * np.sin(z_mm / 20)
    coordinate = 70 - 6 * (scores + 3)
    return ScoredVolume(
        name=name,
        z_mm=z_mm,
        spacing_mm_zyx=volume.spacing_mm_zyx,
        scores=scores,
        scores_sd=np.full(len(scores), 0.25),
        curve=read_curve(scores, z_mm),
        coordinate=coordinate,
        coordinate_sd=np.full(len(scores), 3.0),
        zones=tuple("chest" if c > 56 else "abdomen" if c > 0 else "pelvis" for c in coordinate),
        anomalies=(
            Anomaly("NONLINEAR", 20, 29, 0.9, "scores leave <b>the line</b>"),
            Anomaly("SPACING_MISMATCH", 0, last, 0.7, "the header says 4 mm"),
        ),
        body_part=BodyPart("ABDOMEN", "818981001", "Abdomen", 0.87, {"chest": 0.1, "abdomen": 1.0}),
        expected_step_mm=3.2,
        notes=("padding down to -3024 HU clipped to -1024",),
        landmarks=(LocatedLandmark("liver_dome", 70.0, 18, 56.0, 12.0),),
    )


def uncalibrated(volume: Volume) -> ScoredVolume:
    return replace(
        scored(volume), scores_sd=None, coordinate=None, coordinate_sd=None, zones=None,
        anomalies=(), body_part=None, expected_step_mm=None, landmarks=(), notes=(),
    )  # fmt: skip


class Outline(HTMLParser):
    """Tags with their attributes, and the text inside every kind of tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(data_uri: str) -> np.ndarray:
    encoded = base64.b64decode(data_uri.removeprefix("data:image/webp;base64,"), validate=True)
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_the_page_needs_nothing_outside_itself_and_allows_nothing_but_its_own_script() -> None:
    volume = grey_volume()
    page = scan_page(volume, scored(volume))
    outline = Outline(page)
    for _, attributes in outline.tags:
        for key in ("src", "href", "action", "srcset", "data", "poster"):
            assert (attributes.get(key) or "data:").startswith("data:image/webp;base64,") or (
                key not in attributes
            )
        assert not [key for key in attributes if key == "style" or key.startswith("on")]
    assert not {"link", "iframe", "object", "form", "base"} & {tag for tag, _ in outline.tags}
    assert "@import" not in page
    assert "url(" not in page.replace("url(#inside)", "")
    (policy,) = [
        meta["content"]
        for meta in outline.named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    (style,) = outline.texts["style"]
    data, script = outline.texts["script"]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src '{csp_hash(style)}'; "
        f"script-src '{csp_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    assert json.loads(data)["z_mm"] == volume.z_mm.tolist()


def test_names_notes_and_messages_are_text_and_paths_stay_out() -> None:
    volume = grey_volume()
    hostile = replace(
        scored(volume, HOSTILE),
        notes=(HOSTILE,),
        zones=(HOSTILE,) * N,
        anomalies=(Anomaly("GAP", 3, 4, None, HOSTILE),),
        body_part=BodyPart(HOSTILE, HOSTILE, HOSTILE, 0.5, {HOSTILE: 0.5}),
    )
    page = scan_page(volume, hostile)
    outline = Outline(page)
    plain = Outline(scan_page(volume, replace(hostile, name="a")))
    assert len(outline.named("script")) == len(plain.named("script")) == 2
    assert len(outline.named("img")) == 2 + len(outline.named("button")[:2]) * 2
    assert outline.texts["h1"] == [HOSTILE]
    assert outline.texts["title"] == [HOSTILE]
    assert "alert(1)</script>" not in page.replace("&lt;", "<not>")
    data = json.loads(outline.texts["script"][0])
    assert data["anomalies"][0]["message"] == HOSTILE
    assert data["zones"] == [{"zone": HOSTILE, "first_slice": 0, "last_slice": N - 1}]
    assert "DOE" not in page


def test_the_header_says_what_is_proposed_and_what_is_odd() -> None:
    volume = grey_volume()
    page = scan_page(volume, scored(volume))
    text = " ".join(re.sub(r"<[^>]+>", " ", page.split("<body>")[1].split("<script")[0]).split())
    for words in (
        "Proposed body part ABDOMEN confidence 87 %; proposed, nothing is written into the file",
        "Abdomen, SNOMED CT 818981001 covers chest 10 %, abdomen 100 %",
        "Direction of the slices head to feet",
        "Slice spacing (header) 4 mm the scores suggest 3.20 mm (−20 %)",  # noqa: RUF001
        "90 slices, 360 mm pixels 5 x 6 mm",
        "NONLINEAR scores leave &lt;b&gt;the line&lt;/b&gt; slices 20 to 29",
        "SPACING_MISMATCH the header says 4 mm the whole scan",
        "liver dome slice 18, z 70 ± 12 mm",
        "padding down to -3024 HU clipped to -1024",
    ):
        assert words in text
    odd = re.findall(r'<dd class="odd"><strong>([^<]*)', page)
    assert odd == [f"r = {scored(volume).curve.r:.4f}", "4 mm"]


@pytest.mark.parametrize("num_slices", [1, 2, 90])
def test_without_a_calibration_the_page_says_less_and_is_whole(num_slices: int) -> None:
    volume = grey_volume(num_slices)
    page = scan_page(volume, uncalibrated(volume))
    data = json.loads(Outline(page).texts["script"][0])
    assert data["coordinate"] is data["zones"] is data["scores_sd"] is None
    assert data["coordinate_ticks"] == data["landmarks"] == []
    assert (data["line"] is None) == (num_slices < 3)
    assert "Proposed body part" not in page
    assert "without a calibration, spacing and range are not judged" in page


def test_scores_of_another_volume_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scan: 90 scores for 12 slices"):
        write_scan_page(grey_volume(12), scored(grey_volume()), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_every_slice_is_on_its_place_of_its_sheet_in_every_window() -> None:
    volume = grey_volume()
    sheets = slice_sheets(volume)
    assert sheets.tile_px % 16 == 0
    for window, images in sheets.images.items():
        pictures = [picture(image) for image in images]
        for index in range(N):
            sheet, place = divmod(index, sheets.per_sheet)
            row, column = divmod(place, sheets.columns)
            side = sheets.tile_px
            tile = pictures[sheet][
                row * side : (row + 1) * side, column * side : (column + 1) * side
            ]
            middle = tile[side // 4 : -side // 4, side // 4 : -side // 4]
            assert np.abs(middle - grey_of(volume, index, window)).max() <= 6


def test_views_have_square_millimetres_the_head_on_top_and_show_gaps() -> None:
    volume = grey_volume(gap_after=40)
    coronal, sagittal = body_views(volume)
    assert (coronal.width_mm, sagittal.width_mm) == (50 * 6.0, 40 * 5.0)
    for view in (coronal, sagittal):
        pixels = picture(view.image)
        assert view.height_mm == pytest.approx(N * STEP_MM + 40)
        height, width = pixels.shape
        assert width / height == pytest.approx(view.width_mm / view.height_mm, rel=0.01)
        assert pixels[0].mean() < pixels[-1].mean()
        gap_mm = volume.z_mm[40] + STEP_MM / 2 + np.array([4, 20, 36])
        rows = ((gap_mm + STEP_MM / 2) / view.height_mm * height).astype(int)
        assert np.abs(pixels[rows].astype(int) - 96).max() <= 6


def test_pictures_show_the_body_and_not_the_air_or_the_couch() -> None:
    hu = np.full((20, 100, 120), -1000, np.int16)
    hu[:, 30:60, 40:90] = 40
    hu[:, 80:82, 10:110] = 200  # the couch
    hu[5, 30:60, 100:110] = 40  # in one slice of twenty: kept
    volume = Volume(hu, (5.0, 2.0, 2.0))
    assert body_box(volume) == (slice(24, 66), slice(34, 96))
    air = Volume(np.full((3, 16, 16), -1000, np.int16), (5.0, 2.0, 2.0))
    assert body_box(air) == (slice(None), slice(None))


def test_coordinate_ticks_are_round_and_at_the_scores_that_have_them() -> None:
    one = scored(grey_volume())
    assert one.coordinate is not None
    ticks = coordinate_ticks(one)
    assert [t["coordinate"] for t in ticks] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    for tick in ticks:
        assert 70 - 6 * (tick["score"] + 3) == pytest.approx(tick["coordinate"], abs=1e-6)


@pytest.mark.real
def test_the_page_of_a_long_real_scan_can_be_mailed(real_ct: Path, tmp_path: Path) -> None:
    volume = read_volume(real_ct / "tcga_de_a4ma.nii.gz")
    write_scan_page(volume, uncalibrated(volume), tmp_path / "page.html")
    assert volume.num_slices > 250
    assert (tmp_path / "page.html").stat().st_size < 5_000_000


# ---------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs an installed Chromium or Chrome")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()


class Reader:
    """Somebody who looks at a page and moves in it; what goes wrong is kept."""

    def __init__(self, browser, file: Path, **context) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on(
            "request",
            lambda request: (
                request.url in (file.as_uri(),)
                or request.url.startswith("data:")
                or self.faults.append(request.url)
            ),
        )
        self.page.goto(file.as_uri())
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('img.sheet')].every((sheet) => sheet.complete)"
        )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        if error[0] is None:
            assert self.faults == []

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


@pytest.mark.browser
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


@pytest.mark.browser
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


@pytest.mark.browser
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
        page.touchscreen.tap(*reader.height_of(volume, 40, ".view"))
        assert reader.shows(volume, 40)


@pytest.mark.browser
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


@pytest.mark.browser
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


@pytest.mark.browser
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


@pytest.mark.browser
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
