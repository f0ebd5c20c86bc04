"""The parts of the demo that need no server: its prompts, settings and page."""

import csv
import json

import numpy as np
import pytest
from modular_safety_lora.audit import presets
from modular_safety_lora.lab import plans, workflow_variants
from modular_safety_lora.lab.demo import pages, pictures, story
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.shipped import WORKFLOWS
from modular_safety_lora.lab.world import checkpoint, sets, train_modules
from PIL import Image, ImageColor


def test_the_story_s_base_folder_has_detector_preset_and_prompts(tmp_path):
    story.prepare(tmp_path)
    settings = json.loads((tmp_path / "user" / "modular-safety-lora.json").read_text())
    assert (tmp_path / "user" / settings["detectors"][story.PRESET]["file"]).is_file()
    (preset,) = presets.read_presets(settings["audit_presets"], "the demo").values()
    assert preset.thresholds == {sets.CONCEPT: 0.25}
    for which in story.SETS:
        rows = list(csv.DictReader((tmp_path / "input" / f"{which.name}.csv").open()))
        assert [row["prompt"] for row in rows] == list(which.prompts)
        assert len({row["sd_seed"] for row in rows}) == len(rows)
        armed = [any(name in row["prompt"] for name in sets.WEAPONS) for row in rows]
        assert all(armed) if which.name == "weapons" else not any(armed)


def test_the_shipped_workflow_has_this_world_s_files_and_a_fourth_model():
    prompt = story.prompt_of(story.SETS[0])
    words = {value for node in prompt.values() for value in map(str, node["inputs"].values())}
    assert not words & story.HERE.keys() and checkpoint.CHECKPOINT in words
    (compared,) = (each for each in prompt.values() if each["class_type"] == "MSL_CompareAudits")
    assert compared["inputs"]["names"].split(", ") == [title for title, _ in story.ARMS.values()]
    audits = [prompt[compared["inputs"][f"reports.report{place}"][0]] for place in range(4)]
    assert [each["inputs"]["name"] for each in audits] == [f"weapons/{arm}" for arm in story.ARMS]
    first = audits[0]["inputs"]
    same = first.keys() - {"name", "model", "clip"}
    assert all(each["inputs"][name] == first[name] for each in audits for name in same)
    task = prompt[audits[2]["inputs"]["model"][0]]
    safety = prompt[task["inputs"]["model"][0]]
    assert [each["class_type"] for each in (task, safety)] == ["LoraLoaderModelOnly"] * 2
    assert task["inputs"]["lora_name"] == "task-firefox-sequential.safetensors"
    assert safety["inputs"]["lora_name"] == train_modules.ESD
    assert safety["inputs"]["model"] == first["model"]


def test_the_undone_prompt_merges_what_was_trained_on_top_and_samples_nothing():
    prompt = story.undone_prompt(plans.MERGE)
    kinds = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert len(kinds) == len(prompt) == 5 and "KSampler" not in kinds
    assert kinds["MSL_LoadTaskLora"]["lora_name"] == "task-firefox-sequential.safetensors"
    assert kinds["MSL_LoadSafetyLora"]["lora_name"] == train_modules.ESD
    given = [node["inputs"].values() for node in prompt.values()]
    assert {each[0] for one in given for each in one if isinstance(each, list)} <= prompt.keys()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base folder as the demo leaves it: the arm at place n has its first n pictures flagged."""
    base = tmp_path_factory.mktemp("base")
    for which in story.SETS:
        for place, arm in enumerate(story.ARMS):
            folder = base / "output" / "audits" / which.name / arm
            (folder / "pictures").mkdir(parents=True)
            rows = []
            for number, prompt in enumerate(which.prompts, 1):
                drawn = np.full((8, 8, 3), number + 40 * place, np.uint8)
                Image.fromarray(drawn).save(folder / "pictures" / f"{number}.png")
                row = {"key": str(number), "prompt": prompt, "picture": f"pictures/{number}.png"}
                rows.append(row | {"flagged": number <= place})
            (folder / "report.json").write_text(json.dumps({"images": rows[::-1]}))
    return base


def test_the_page_shows_every_picture_and_frames_what_was_flagged(made):
    told = {which.name: story.rows_of(made, which) for which in story.SETS}
    chart = made / "chart.png"
    Image.new("RGB", (4, 4)).save(chart)
    page = pages.page(told, chart, "**holds** & 99 %", "<undone>")
    assert page.count("<figure") == 4 * sum(len(which.prompts) for which in story.SETS)
    assert page.count('class="flagged"') == 2 * (0 + 1 + 2 + 3)
    shown = [
        pages.inline(row["file"])
        for arms in told.values()
        for rows in arms.values()
        for row in rows
    ]
    assert all(each in page for each in (*shown, pages.inline(chart)))
    assert (
        "<strong>holds</strong> &amp; 99 %" in page
        and "&lt;undone&gt;" in page
        and "http://" not in page
    )
    first = [row["prompt"] for row in told["weapons"]["base"]]
    assert first == list(story.SETS[0].prompts)
    rate = pages.rate(told["weapons"]["modular"])
    assert (rate["flagged"], rate["of"]) == (3, len(story.SETS[0].prompts))
    assert 0 < rate["low"] < 3 / rate["of"] < rate["high"]


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
    page = pages.banner(made, PACK / "docs" / "icon.svg")
    assert page.count('class="drawn') == 3 * 5 and page.count("data:image/svg+xml;base64,") == 1
    told = story.rows_of(made, story.SETS[0])
    for arm in ("base", "sequential", "modular"):
        assert all(pages.inline(row["file"]) in page for row in told[arm][pages.BANNERED])
    assert page.count("drawn flagged") == 0 + 1 + 2  # as `made` has them


def test_icon_and_banner_are_as_the_registry_wants_them():
    icon = (PACK / "docs" / "icon.svg").read_text(encoding="utf-8")
    assert 'viewBox="0 0 400 400"' in icon and "<script" not in icon
    banner = Image.open(PACK / "docs" / "banner.jpg")
    assert banner.size == pictures.BANNER and banner.width * 9 == banner.height * 21
