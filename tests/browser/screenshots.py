"""The shipped workflows' names, and pictures of single nodes in the browser."""

from modular_safety_lora.lab.frontend import settle
from modular_safety_lora.lab.server import PACK

SCREENSHOTS = PACK / "test-output"
NAME = "Modular merge and audit"
SAFETY, TASK = "Train a safety LoRA", "Train a task LoRA beside it"
PROBE = "Probe before you sample"
EXTRACT = "From a safe checkpoint to a safety LoRA"
COMPARE, SETS = "Compare base and modular", "Audit a prompt set"


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
