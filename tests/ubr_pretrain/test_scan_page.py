"""The page of a scan as a file: what it holds, and what it lets in."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.ubr_pretrain.scan_pages import (
    HOSTILE,
    STEP_MM,
    N,
    grey_of,
    grey_volume,
    scored,
    uncalibrated,
)
from ubr_pretrain.anomalies import Anomaly
from ubr_pretrain.body_part import BodyPart
from ubr_pretrain.ct import Volume
from ubr_pretrain.scan_page import coordinate_ticks, scan_page, write_scan_page
from ubr_pretrain.scan_views import body_box, body_views, slice_sheets
from ubr_pretrain.volumes import read_volume
from ubr_pretrain.web_page import csp_hash


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


def test_S04_names_notes_and_messages_of_a_scan_are_text_and_paths_stay_out() -> None:
    """The page of a scan shows names, notes, zones and messages as text, and no path."""
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
