"""Pictures of single nodes in the browser, and which of many things are looked at each time."""

import pytest
from modular_safety_lora.lab.frontend import settle
from modular_safety_lora.lab.server import PACK

SCREENSHOTS = PACK / "test-output"


def look_at(page, node_id: int, file: str, scale: float = 1.4) -> None:
    """Bring one node to the middle of the screen and take its picture."""
    page.evaluate(
        """([id, scale]) => {
            const node = app.graph.getNodeById(id), view = app.canvas.ds
            const box = app.canvas.canvas.getBoundingClientRect()
            view.scale = scale
            view.offset = [box.width / scale / 2 - node.pos[0] - node.size[0] / 2,
                           box.height / scale / 2 - node.pos[1] - node.size[1] / 2]
            app.canvas.setDirty(true, true)
        }""",
        [node_id, scale],
    )
    settle(page)
    page.screenshot(path=SCREENSHOTS / file)


def node_of(page, node_type: str) -> int:
    """The number of the first node of a type; a graph that has none gets one."""
    return page.evaluate(
        """(type) => {
            const found = app.graph._nodes.find((node) => node.type === type)
            if (found) return found.id
            const made = LiteGraph.createNode(type)
            app.graph.add(made)
            return made.id
        }""",
        node_type,
    )


def tried(names, often) -> list:
    """Of what is made from one table some is looked at in every run, and the rest is `long`."""
    return [
        pytest.param(each, marks=[] if often(each) else pytest.mark.long) for each in sorted(names)
    ]
