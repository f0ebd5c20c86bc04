"""`python dev.py demo`: the shipped workflow on the real server, with pictures and reports."""

import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path

from .. import assets, shipped
from ..server import PACK, Outcome, Server, place_models
from . import audits

OUTPUT = PACK / "demo-output"
WORKFLOW = "Modular merge and audit"


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    base = OUTPUT / "comfyui"
    models = assets.shared_models()
    place_models(models, base)
    (base / "input").mkdir(parents=True)
    assets.astronaut(base / "input" / "astronaut.png")

    start = say("Starting ComfyUI on the CPU")
    with Server(base) as server:
        print(
            f"    up at {server.url} after {time.monotonic() - start:.0f} s; its log is"
            f" {server.log}",
            flush=True,
        )
        prompt = shipped.prompt(WORKFLOW)
        outcome = run(server, prompt, f"Running the workflow {WORKFLOW!r}")
        files = save_pictures(server, outcome, "merged")
        show(outcome, node_fed_by(prompt, "MSL_ModularMerge"), "Merge report", "merge-report.md")
        show(outcome, node_fed_by(prompt, "MSL_NudityAudit"), "Audit report", "audit-report.md")
        photograph = photograph_prompt()
        outcome = run(server, photograph, "Auditing a photograph, counting faces")
        files += save_pictures(server, outcome, "photograph")
        show(outcome, "3", "Audit report of the photograph", "photograph-report.json")
    start = say(
        "Auditing photographs as taken, darkened, blurred and turned, and comparing the audits"
    )
    files += audits.compared(OUTPUT) + audits.folder_report(OUTPUT)
    print(f"    done in {time.monotonic() - start:.0f} s", flush=True)
    print(
        "\nThe server is stopped. The small checkpoint has random weights, so its pictures are"
        " noise. Pictures and reports:"
    )
    reports = [*OUTPUT.glob("*.md"), *OUTPUT.glob("*.json")]
    for file in dict.fromkeys([*files, *sorted(reports)]):
        print(f"    {file}")
    return 0


def photograph_prompt() -> dict:
    """LoadImage, the audit with the preset that counts faces, and previews, in the API's form."""
    audit = {
        "images": ["1", 0],
        "preset": "faces",
        "threshold": 0.0,
        "action": "annotate",
        "classes": "",
    }
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "2": {"class_type": "MSL_NudityAudit", "inputs": audit},
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 2]}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }


def run(server: Server, prompt: dict, what: str) -> Outcome:
    """Run a prompt with its progress on the terminal.

    A failing node ends the demo with its message.
    """
    start = say(what)

    def on_event(kind: str, data: dict) -> None:
        if kind == "executing" and data.get("node"):
            print(f"    {prompt[data['node']]['class_type']}", flush=True)
        elif kind == "progress" and data["max"] > 1:
            print(
                f"        {data['value']} of {data['max']}",
                end="\n" if data["value"] == data["max"] else "\r",
                flush=True,
            )

    outcome = asyncio.run(server.run(prompt, on_event))
    if outcome.error:
        raise SystemExit(
            f"{outcome.error['node_type']} failed: {outcome.error['exception_message']}"
        )
    print(f"    done in {time.monotonic() - start:.0f} s", flush=True)
    return outcome


def save_pictures(server: Server, outcome: Outcome, stem: str) -> list[Path]:
    """Write every picture that a node showed into the output folder."""
    shown = [picture for ui in outcome.outputs.values() for picture in ui.get("images", [])]
    files = []
    for number, (content, name) in enumerate(
        {server.picture(each): each["filename"] for each in shown}.items()
    ):
        files.append(OUTPUT / f"{stem}-{number}{Path(name).suffix}")
        files[-1].write_bytes(content)
    return files


def node_fed_by(prompt: dict, class_type: str) -> str:
    """The PreviewAny node that shows an output of the first node of a class."""
    for number, node in prompt.items():
        source = node["inputs"].get("source")
        if (
            node["class_type"] == "PreviewAny"
            and source
            and prompt[source[0]]["class_type"] == class_type
        ):
            return number
    raise LookupError(f"no PreviewAny shows an output of {class_type}")


def show(outcome: Outcome, node: str, title: str, file: str) -> None:
    """Print a report that a node showed, and keep it as a file."""
    text = outcome.outputs[node]["text"][0]
    (OUTPUT / file).write_text(text, encoding="utf-8")
    print(f"\n{title}\n{text}\n", flush=True)


def say(what: str) -> float:
    print(f"{what} ...", flush=True)
    return time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
