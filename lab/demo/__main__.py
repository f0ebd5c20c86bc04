"""`python dev.py demo`: the shipped workflows on the real server, and what they show as a page."""

import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path

from .. import assets, shipped
from ..plans import MERGE
from ..server import PACK, Outcome, Server
from . import pages, story

OUTPUT = PACK / "demo-output"
PAGE = OUTPUT / "index.html"
WORKFLOW = MERGE


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    base = OUTPUT / "comfyui"
    start = say("Writing the small model of emoji")
    story.place_models(base)
    story.prepare(base)
    assets.astronaut(base / "input" / "astronaut.png")
    print(f"    done in {time.monotonic() - start:.0f} s", flush=True)

    start = say("Starting ComfyUI on the CPU")
    with Server(base, story.ARGUMENTS) as server:
        print(
            f"    up at {server.url} after {time.monotonic() - start:.0f} s; its log is"
            f" {server.log}",
            flush=True,
        )
        prompt = story.in_this_world(shipped.api_form(WORKFLOW))
        outcome = run(server, prompt, f"Running the workflow {WORKFLOW!r}")
        files = save_pictures(server, outcome, "merged")
        merged = show(outcome, prompt, "MSL_ModularMerge", "Merge report", "merge-report.md")
        show(outcome, prompt, "MSL_NudityAudit", "Audit report", "audit-report.md")
        prompt = story.undone_prompt(WORKFLOW)
        outcome = run(server, prompt, "Merging what was fine-tuned after safety")
        undone = show(outcome, prompt, "MSL_ModularMerge", "Merge report of it", "undone-report.md")
        charts = {}
        for which in story.SETS:
            prompt = story.prompt_of(which)
            outcome = run(server, prompt, f"Four models, {which.title.lower()}")
            charts[which.name] = save_pictures(server, chart_of(outcome, prompt), which.name)
            show(outcome, prompt, "MSL_CompareAudits", which.title, f"{which.name}.md")
            files += charts[which.name]
        photograph = photograph_prompt()
        outcome = run(server, photograph, "Auditing a photograph with NudeNet, counting faces")
        files += save_pictures(server, outcome, "photograph")
    told = {which.name: story.rows_of(base, which) for which in story.SETS}
    PAGE.write_text(pages.page(told, charts["weapons"][0], merged, undone), encoding="utf-8")
    print("\nThe server is stopped. Pictures and reports:")
    for file in dict.fromkeys([*files, *sorted(OUTPUT.glob("*.md"))]):
        print(f"    {file}")
    print(f"\nThe story of them, to read in a browser: {PAGE}")
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
    """Run a prompt with its progress on the terminal; a failing node ends the demo."""
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


def chart_of(outcome: Outcome, prompt: dict) -> Outcome:
    """What the PreviewImage after Compare Audits showed, alone."""
    for number, node in prompt.items():
        source = node["inputs"].get("images")
        if source and prompt[source[0]]["class_type"] == "MSL_CompareAudits":
            return Outcome({number: outcome.outputs[number]})
    raise LookupError("no PreviewImage shows a chart of Compare Audits")


def show(outcome: Outcome, prompt: dict, class_type: str, title: str, file: str) -> str:
    """Print the words of the first node of a class, keep them as a file, and give them back.

    They are what a PreviewAny node shows of its output.
    """
    for number, node in prompt.items():
        source = node["inputs"].get("source")
        if node["class_type"] == "PreviewAny" and prompt[source[0]]["class_type"] == class_type:
            text = outcome.outputs[number]["text"][0]
            (OUTPUT / file).write_text(text, encoding="utf-8")
            print(f"\n{title}\n{text}\n", flush=True)
            return text
    raise LookupError(f"no PreviewAny shows an output of {class_type}")


def say(what: str) -> float:
    print(f"{what} ...", flush=True)
    return time.monotonic()


if __name__ == "__main__":
    sys.exit(main())
