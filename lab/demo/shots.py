"""Pictures of the graph and of pages, in a real browser, with the emoji world's files."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from ...emoji import checkpoint, story
from ...emoji.files import THOROUGH, task_file
from ...emoji.names import INK, SIDE, TASK, caption
from ...host.comfyui import enter_comfyui
from ..server import PACK_NAME, Server
from ..world import pictures

HERE = {  # what the shipped workflows say, and what stands in its place here
    "v1-5-pruned-emaonly-fp16.safetensors": checkpoint.CHECKPOINT,
    "my-safety-lora.safetensors": THOROUGH,
    "my-style.safetensors": task_file(INK),
    "my-subject.safetensors": task_file(TASK),
    "a portrait of an astronaut": caption("umbrella", INK),
    "blurry": "",
}
SAMPLING = {"steps": story.STEPS, "cfg": story.GUIDANCE, "scheduler": story.SCHEDULER}
# all in fp32: on the CPU every call would cast the weights again
ARGUMENTS = ("--cpu", "--fp32-text-enc", "--fp32-unet")
LEARNED = {  # what the training that is shown is told
    "steps": 120,
    "learning_rate": 1.5e-3,
    "rank": 16,
    "batch_size": 4,
    "preview_every": 40,
    "preview_size": SIDE,
    "preview_preset": story.PRESET,
    "preview_prompts": f"{caption('cat', TASK)}\n{caption('dagger', TASK, concept=True)}",
}
GIVEN = {  # by node
    "EmptyLatentImage": {"width": SIDE, "height": SIDE},
    "KSampler": SAMPLING,
    "MSL_NudityAudit": {"preset": story.PRESET},
    "LoadImageTextDataSetFromFolder": {"folder": TASK},
    "MSL_TrainTaskLora": LEARNED,
}
OPEN = """async ([address, words]) => {
    const graph = await (await fetch(address)).json()
    graph.extra = {} // the whole graph is seen: pictures are loaded where they are
    for (const node of graph.nodes) {
        delete node.properties?.models
        node.widgets_values = node.widgets_values?.map((value) => words[value] ?? value)
    }
    await app.loadGraphData(graph)
}"""
SET = """(given) => {
    for (const node of app.graph._nodes)
        for (const widget of node.widgets ?? [])
            widget.value = given[node.type]?.[widget.name] ?? widget.value
}"""
SHOWN = """(title) => {
    if (Object.keys(app.lastNodeErrors ?? {}).length) throw new Error('the prompt was refused')
    if (app.lastExecutionError) throw new Error(app.lastExecutionError.exception_message)
    return app.graph._nodes.find((node) => node.title === title).imgs?.length > 0
}"""
FIT = """([left, right]) => {
    const canvas = app.canvas, box = canvas.canvas.getBoundingClientRect()
    const shown = app.graph._nodes.filter((node) => node.type !== 'MarkdownNote'
        && node.pos[0] >= left && node.pos[0] < right)
    const first = Math.min(...shown.map((node) => node.pos[0]))
    const top = Math.min(...shown.map((node) => node.pos[1]))
    const wide = Math.max(...shown.map((node) => node.pos[0] + node.size[0])) - first
    const high = Math.max(...shown.map((node) => node.pos[1] + node.size[1])) - top
    const scale = Math.min((box.width - 90) / wide, (box.height - 220) / high)
    canvas.ds.scale = scale
    canvas.ds.offset = [80 / scale - first, 190 / scale - top]
    canvas.setDirty(true, true)
    const title = 84 * scale // and that of its group
    return [box.left + 68, box.top + 182 - title, wide * scale + 24, high * scale + title + 16]
}"""


@contextlib.contextmanager
def emoji_server() -> Iterator[Server]:
    """A live ComfyUI with the emoji world in it."""
    with tempfile.TemporaryDirectory() as folder:
        place(Path(folder))
        with Server(Path(folder), ARGUMENTS) as server:
            yield server


def place(base: Path) -> None:
    """Put the emoji model and pictures to learn from into a ComfyUI's folders."""
    enter_comfyui()
    checkpoint.write(base / "models" / "checkpoints" / checkpoint.CHECKPOINT)
    pictures.copy_with_texts(base / "input" / TASK)


def open_here(page, name: str) -> None:
    """Open a shipped workflow with this world's files, sizes, sampling and detector."""
    address = f"/api/workflow_templates/{PACK_NAME}/{name}.json"
    page.evaluate(OPEN, [address, HERE])
    page.wait_for_timeout(1500)
    page.evaluate(SET, GIVEN)


def run(page, waits_for: str) -> None:
    """Run the open workflow until the node of this title shows pictures."""
    page.evaluate("async () => app.queuePrompt(0)")
    page.wait_for_function(SHOWN, arg=waits_for, timeout=300_000)


def of_graph(page, between: tuple[int, int]) -> Image.Image:
    """The open workflow, from one x of the graph to another."""
    clip = page.evaluate(FIT, list(between))
    page.wait_for_timeout(7000)  # the message that a job is done goes away
    clip = dict(zip(("x", "y", "width", "height"), clip, strict=True))
    return Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")


def of_page(browser, file: Path, height: int, width: int = 1180) -> Image.Image:
    """The top of a page of the demo, this many pixels of it."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(file.as_uri())
    page.wait_for_timeout(500)
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
