"""The demo's story on a live server, with few pictures of one step."""

import pytest
from modular_safety_lora.lab import shipped
from modular_safety_lora.lab.demo import story
from modular_safety_lora.lab.demo.__main__ import WORKFLOW, chart_of
from prompting import run


@pytest.fixture
def world(server):
    """The live server's folder, with the emoji world in it for one test."""
    folders = [server.folder / name for name in ("models", "user", "input", "output")]

    def files() -> set:
        return {file for folder in folders for file in folder.rglob("*") if file.is_file()}

    before = files()
    story.place_models(server.folder)
    story.prepare(server.folder)
    yield server.folder
    for file in files() - before:
        file.unlink()


def test_the_emoji_world_runs_in_the_shipped_workflows_and_its_story_is_told(server, world):
    which = story.SETS[0]
    prompt = story.prompt_of(which)
    for node in prompt.values():
        if node["class_type"] == "MSL_AuditPromptSet":
            node["inputs"] |= {"limit": 2, "steps": 1}
    merged = run(server, story.in_this_world(shipped.api_form(WORKFLOW)), n9__steps=1)
    outcome = run(server, prompt)
    undone = run(server, story.undone_prompt(WORKFLOW))
    assert merged.error is None and outcome.error is None
    texts = [shown["text"][0] for shown in merged.outputs.values() if "text" in shown]
    assert any("The safety LoRA holds" in text for text in texts)
    assert any("preset weapons" in text for text in texts)
    told = [shown["text"][0] for shown in undone.outputs.values() if "text" in shown]
    (report,) = {text for text in told if "Sampling will stop" in text}
    assert "task-firefox-sequential.safetensors" in report
    assert chart_of(outcome, prompt).outputs
    told = story.rows_of(world, which)
    assert {arm: len(rows) for arm, rows in told.items()} == dict.fromkeys(story.ARMS, 2)
    pictures = [told[arm][0]["file"].read_bytes() for arm in story.ARMS]
    assert len(set(pictures)) == len(story.ARMS), "two models draw the same"
