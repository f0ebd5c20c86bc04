"""The pages of audits as files: sorted, filtered, what is counted hidden until a click."""

import numpy as np
import pytest
from modular_safety_lora.audit import about
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.page import Shown, page
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import Tally
from modular_safety_lora.audit.thumbnails import Thumbnail, of_pixels
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
NAMES = "dcba"
SCORES = (0.9, None, 0.7, 0.8)  # of what counts, None where nothing is


@pytest.fixture
def opened(browser, tmp_path):
    """The page of four pictures; the last one's file is not there."""
    rows = []
    for seed, (name, score) in enumerate(zip(NAMES, SCORES, strict=True)):
        found = {"class": "ANUS_EXPOSED", "score": score, "box": [9, 9, 40, 40]}
        row = judge([found] if score else [], PRESETS["strict"])
        rows.append({"key": name, "prompt": name, "seed": 10 - seed} | row)
        if name != "a":
            Image.fromarray(NOISE).save(tmp_path / f"{name}.png")
    small = [Thumbnail(row, f"{row['key']}.png", of_pixels(row, NOISE)) for row in rows]
    summary = Tally(PRESETS["strict"]).of(rows).summary(find()) | {"unreadable": 0}
    summary |= {"flagged_by_threshold": [[0.5, 0.75]]}
    flagged = [row for row in rows if row["flagged"]]
    html = page("Audit", about.about(), summary, Shown(flagged, [], small), {})
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    faults = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.goto((tmp_path / "report.html").as_uri())
    yield tab
    tab.close()
    assert not faults


def names(tab) -> str:
    return "".join(each.get_attribute("data-name") for each in tab.locator("figure:visible").all())


def test_a_gallery_is_sorted_and_filtered(opened):
    assert names(opened) == "dcba"
    for by, order in {
        "highest score": "dabc",
        "name": "abcd",
        "seed": "abcd",
        "flagged first": "dcba",
    }.items():
        opened.get_by_label("Sort by").select_option(by)
        assert names(opened) == order, by
    opened.get_by_label("Show").select_option("flagged")
    assert names(opened) == "dba"
    opened.get_by_label("Show").select_option("not flagged")
    assert names(opened) == "c"
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_what_counts_is_shown_on_a_click_and_hidden_by_another(opened):
    image = opened.locator("figure img").first
    censored = image.get_attribute("src")
    assert censored.startswith("data:")
    image.click()
    assert image.get_attribute("src").endswith("d.png")
    image.click()
    assert image.get_attribute("src") == censored


def test_heads_sort_a_table(opened):
    opened.set_viewport_size({"width": 1280, "height": 800})
    table = opened.locator("h2:has-text('Flagged') + .list table")

    def column(place: int) -> list[str]:
        return table.locator(f"td:nth-child({place})").all_inner_texts()

    assert column(1) == ["d", "b", "a"]
    head = table.locator("th").first
    head.click()
    assert column(1) == ["a", "b", "d"] and head.get_attribute("aria-sort") == "ascending"
    head.press("Enter")
    assert column(1) == ["d", "b", "a"] and head.get_attribute("aria-sort") == "descending"
    table.locator("th").nth(2).click()
    assert column(3) == ["7", "8", "10"] and head.get_attribute("aria-sort") is None
