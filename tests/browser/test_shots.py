"""The graphs that the documents' pictures show: shipped workflows with the emoji world's files."""

import pytest
from modular_safety_lora.emoji import checkpoint, files
from modular_safety_lora.lab.demo import shots
from modular_safety_lora.lab.plans import MERGE, TASK

VALUES = """(type) => {
    const node = app.graph._nodes.find((node) => node.type === type)
    return Object.fromEntries(node.widgets.map((widget) => [widget.name, widget.value]))
}"""
EVERY = (
    """() => app.graph._nodes.flatMap((node) => (node.widgets ?? []).map((each) => each.value))"""
)


@pytest.mark.parametrize("name", [MERGE, TASK])
def test_a_workflow_opens_with_this_world_s_files_and_settings(page, name):
    shots.open_here(page, name)
    values = set(page.evaluate(EVERY))
    assert not values & shots.HERE.keys()
    assert {checkpoint.CHECKPOINT, files.THOROUGH} <= values
    for kind in ("EmptyLatentImage", "KSampler", "MSL_NudityAudit"):
        assert page.evaluate(VALUES, kind).items() >= shots.GIVEN[kind].items()
    if name == TASK:
        assert page.evaluate(VALUES, "MSL_TrainTaskLora").items() >= shots.LEARNED.items()
