"""The parts of the demo that need no server: its prompts, settings and page."""

import csv
import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from modular_safety_lora.drawing.html import as_html
from modular_safety_lora.drawing.markdown import table
from modular_safety_lora.emoji import names, page, story
from modular_safety_lora.lab import plans, workflow_variants
from modular_safety_lora.lab.demo import pages, pictures
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.shipped import WORKFLOWS
from PIL import Image, ImageColor


def test_a_set_of_the_story_is_a_prompt_file_with_a_seed_for_each(tmp_path):
    for which in story.SETS:
        which.write(tmp_path / "set.csv")
        rows = list(csv.DictReader((tmp_path / "set.csv").open()))
        assert [row["prompt"] for row in rows] == list(which.prompts)
        assert len({row["sd_seed"] for row in rows}) == len(rows)
        armed = [any(name in row["prompt"] for name in names.WEAPONS) for row in rows]
        assert all(armed) if which.name == "weapons" else not any(armed)


def test_the_page_says_what_every_style_of_its_prompts_is():
    styles = {prompt.rpartition(", ")[2] for which in story.SETS for prompt in which.prompts}
    told = " ".join(which.words for which in story.SETS)
    assert all(style in told for style in styles), styles


def test_a_report_is_html_as_markdown_it_makes_it_and_escapes_what_it_says():
    lines = table(["module", "role"], [["a|b", "<i>task</i>"], ["**c**", "`d`"]])
    told = ["**The safety LoRA holds**: 99 %.", "", *lines, "", "- one & two", "- `three`", ""]
    made = MarkdownIt("commonmark", {"html": False}).enable("table").render("\n".join(told))
    plain = [re.sub(r"</?t(head|body)>|\s+", "", each) for each in (made, as_html("\n".join(told)))]
    assert plain[0] == plain[1] and "<i>" not in plain[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base folder as the demo leaves it: the arm at place n has its first n pictures flagged."""
    base = tmp_path_factory.mktemp("base")
    for which in story.SETS:
        for place, arm in enumerate(story.ARMS):
            folder = story.folder_of(base, which, arm)
            (folder / "pictures").mkdir(parents=True)
            rows = []
            for number, prompt in enumerate(which.prompts, 1):
                drawn = np.full((8, 8, 3), number + 40 * place, np.uint8)
                Image.fromarray(drawn).save(folder / "pictures" / f"{number}.png")
                row = {"key": str(number), "prompt": prompt, "picture": f"pictures/{number}.png"}
                rows.append(row | {"flagged": number <= place})
            (folder / "report.json").write_text(
                json.dumps({"images": rows[::-1], "unreadable": []})
            )
    return base


def test_the_page_shows_every_picture_and_frames_what_was_flagged(made):
    told = {which.name: story.rows_of(made, which) for which in story.SETS}
    chart = made / "chart.png"
    Image.new("RGB", (4, 4)).save(chart)
    text = page.page(told, chart, "**holds** & 99 %", "<undone>")
    assert text.count("<figure") == 4 * sum(len(which.prompts) for which in story.SETS)
    assert text.count('class="flagged"') == 2 * (0 + 1 + 2 + 3)
    # bad from a quarter on: of ten weapons three, of five harmless pictures two
    good_or_bad = ["good", "good", "good", "bad", "good", "good", "bad", "bad"]
    assert re.findall(r'class="arm (\w+)"', text) == good_or_bad
    shown = [
        page.inline(row["file"]) for arms in told.values() for rows in arms.values() for row in rows
    ]
    assert all(each in text for each in (*shown, page.inline(chart)))
    assert (
        "<strong>holds</strong> &amp; 99 %" in text
        and "&lt;undone&gt;" in text
        and "http://" not in text
    )
    first = [row["prompt"] for row in told["weapons"]["base"]]
    assert first == list(story.SETS[0].prompts)
    rate = page.rate(told["weapons"]["modular"])
    assert (rate["flagged"], rate["of"]) == (3, len(story.SETS[0].prompts))
    assert 0 < rate["low"] < 3 / rate["of"] < rate["high"]


def test_a_story_that_is_not_what_the_pictures_show_is_refused():
    seen = {"base": 8, "safe": 2, "sequential": 5, "modular": 0}

    def told(**other):
        found = seen | other
        return {arm: [{"flagged": at < n} for at in range(10)] for arm, n in found.items()}

    story.check(told())
    for wrong in ({"safe": 8}, {"safe": 3}, {"base": 0}, {"sequential": 2}, {"modular": 3}):
        (arm,) = wrong
        with pytest.raises(story.StoryError, match=re.escape(f'of "{story.ARMS[arm][0]}"')):
            story.check(told(**wrong))


def test_a_story_with_a_picture_that_could_not_be_made_is_refused(tmp_path):
    """None flagged of none would be what the page says of the safe ones."""
    folder = story.folder_of(tmp_path, story.SETS[0], next(iter(story.ARMS)))
    folder.mkdir(parents=True)
    row = {"key": "1", "reason": "all of its pixels are not numbers"}
    (folder / "report.json").write_text(json.dumps({"images": [], "unreadable": [row]}))
    with pytest.raises(story.StoryError, match="no picture of prompt 1: .*not numbers"):
        story.rows_of(tmp_path, story.SETS[0])


def test_every_workflow_has_a_thumbnail_of_what_the_demo_made(made):
    found = pictures.thumbnails(made)
    ours = {path.stem for path in WORKFLOWS.glob("*.json")} - set(
        workflow_variants.names().values()
    )
    assert found.keys() == ours
    board = found[plans.EXPERIMENT]  # sequential above, modular below
    rows = [board.crop((0, top, board.width, top + board.height // 2)) for top in (0, 320)]
    orange = ImageColor.getrgb(pictures.FLAGGED)
    framed = [{c: n for n, c in row.getcolors(1 << 20)}.get(orange, 0) for row in rows]
    assert 0 < framed[0] < framed[1]


def test_the_banner_shows_five_of_the_demo_s_pictures_of_three_models(made):
    text = pages.banner(made, PACK / "docs" / "icon.svg")
    assert text.count('class="drawn') == 3 * 5 and text.count("data:image/svg+xml;base64,") == 1
    told = story.rows_of(made, story.SETS[0])
    for arm in ("base", "sequential", "modular"):
        assert all(page.inline(row["file"]) in text for row in told[arm][pages.BANNERED])
    assert text.count("drawn flagged") == 0 + 1 + 2  # as `made` has them


def test_icon_and_banner_are_as_the_registry_wants_them():
    icon = (PACK / "docs" / "icon.svg").read_text(encoding="utf-8")
    assert 'viewBox="0 0 400 400"' in icon and "<script" not in icon
    banner = Image.open(PACK / "docs" / "banner.jpg")
    assert banner.size == pictures.BANNER and banner.width * 9 == banner.height * 21
