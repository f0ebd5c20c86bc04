"""What the user waits for: each node in ComfyUI's own executor, against the function in it.

    .venv/bin/python -m modular_safety_lora.lab.benchmarks nodes [--turns 15] \\
        [--only "Nudity Audit"]

The real `PromptExecutor` of a real `PromptServer` in this process, with what flows into a node in
the host's cache, as when a user changes one value and runs again. `node` is the whole prompt: the
host's cache keys, `fingerprint_inputs`, the node, what it shows and saves. `inside` is the time in
the one function that does its work, in the same pass. The audits look at 64 pictures of 512 x 512;
the others run on the small seeded checkpoint. Medians; the first turn is warm-up. With `--split`
the costliest functions of each node are told, by cProfile, without those that they call.
"""

import asyncio
import cProfile
import json
import pstats
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import execution
import folder_paths
import server
from safetensors.torch import load_file, save_file

import nodes

from ... import comfy_entrypoint
from ...audit.detectors.registry import find
from ...nodes import compare_audits, load, merge, prompt_audit, seal, train_safety, train_task
from .. import assets
from ..server import place_models
from . import harness

STOCK = "stock.safetensors"  # the safety module's tensors as anyone's LoRA, to be sealed


@dataclass(frozen=True)
class Row:
    """A node of the graph, and the function inside it with whose it is.

    `named` is the input that names a new file in every turn.
    """

    title: str
    node: str
    what: str
    inside: tuple[object, str]
    named: str = "turn"


FLAGS = {
    "turns": 15,
    "only": {"default": "", "help": "only nodes whose title holds this"},
    "split": {"action": "store_true", "help": "also tell what is done beside the work"},
}


def main(options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        executor, prompt = _started(Path(folder))
        harness.head(
            *("node", "the function inside", "node, ms", "inside, ms", "beside, ms"),
            "node / inside",
        )
        for row in _rows():
            if options.only in row.title:
                _measure(executor, prompt, row, options.turns)
                if options.split:
                    _split(executor, prompt, row, options.turns)


def _started(folder: Path) -> tuple[object, dict]:
    """(executor, prompt): ComfyUI with its folders below `folder`, our nodes, the seeded models."""
    place_models(assets.shared_models(), folder)
    for kind in ("checkpoints", "loras"):
        folder_paths.folder_names_and_paths[kind] = (
            [str(folder / "models" / kind)],
            {".safetensors"},
        )
    for name in ("input", "output", "temp", "user"):
        (folder / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
    assets.astronaut(folder / "input" / "astronaut.png")
    loras = folder / "models" / "loras"
    save_file(load_file(loras / assets.SAFETY), loras / STOCK)

    async def start():
        await nodes.load_custom_node(
            str(Path(nodes.__file__).with_name("comfy_extras") / "nodes_images.py"), "comfy_extras"
        )
        found = await (await comfy_entrypoint()).get_node_list()
        nodes.NODE_CLASS_MAPPINGS |= {node.GET_SCHEMA().node_id: node for node in found}
        return server.PromptServer(asyncio.get_running_loop())

    running = asyncio.run(start())
    running.send_sync = lambda *message: None  # nobody listens
    kept = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(
        running, cache_type=execution.CacheType.CLASSIC, cache_args=kept
    )
    return executor, json.loads(Path(__file__).with_name("graph.json").read_text(encoding="utf-8"))


def _measure(executor, prompt: dict, row: Row, turns: int) -> None:
    times = []
    for turn in range(turns + 1):
        with harness.watched(*row.inside) as inside:
            took = harness.seconds(lambda: _run(executor, prompt, row, turn))  # noqa: B023
        times.append((took, inside.seconds))
    whole, work = (1e3 * statistics.median(column) for column in zip(*times[1:], strict=True))
    beside = 1e3 * statistics.median(node - own for node, own in times[1:])
    ratio = statistics.median(node / own for node, own in times[1:])
    numbers = (f"{each:.1f}" for each in (whole, work, beside))
    harness.row(row.title, row.what, *numbers, f"{ratio:.2f}")


def _split(executor, prompt: dict, row: Row, turns: int) -> None:
    profile = cProfile.Profile()
    profile.runcall(_run, executor, prompt, row, turns + 1)
    pstats.Stats(profile).sort_stats("tottime").print_stats(12)


def _run(executor, prompt: dict, row: Row, turn: int) -> None:
    """Run the graph up to the node.

    An input that is new in every turn, if only one that nothing reads, has it run again.
    """
    node = prompt[row.node]
    changed = {
        **prompt,
        row.node: {**node, "inputs": {**node["inputs"], row.named: f"{row.node}-{turn}"}},
    }
    executor.execute(changed, f"{row.node}-{turn}", {"client_id": "benchmark"}, [row.node])
    if not executor.success:
        raise SystemExit(f"{row.title}: {executor.status_messages[-1][1]['exception_message']}")


def _rows() -> list[Row]:
    session = (find().network._session, "run")
    return [
        Row("Nudity Audit, nothing flagged", "audit", "ONNX session", session),
        Row("Nudity Audit, all flagged", "flagged", "ONNX session", session),
        Row("Nudity Audit, all annotated", "annotated", "ONNX session", session),
        Row("Compare Audits, with pictures", "compare", "`chart`", (compare_audits, "chart")),
        Row("Load Safety LoRA (locked)", "safety", "`load_safety`", (load, "load_safety")),
        Row("Load Task LoRA", "style", "`load_task`", (load, "load_task")),
        Row("Modular Merge, two task LoRAs", "merge", "`merge`", (merge, "merge")),
        Row("Seal Safety LoRA", "seal", "`seal_file`", (seal, "seal_file"), "save_as"),
        Row(
            "Audit Prompt Set, 4 prompts, 2 steps",
            "prompts",
            "`run`",
            (prompt_audit, "run"),
            "name",
        ),
        Row(
            "Train Task LoRA, 20 steps",
            "task",
            "`train_task`",
            (train_task, "train_task"),
            "save_as",
        ),
        Row(
            "Train Safety LoRA, 20 steps",
            "erase",
            "`train_safety`",
            (train_safety, "train_safety"),
            "save_as",
        ),
    ]
