"""`python dev.py generate`: what is made from the nodes and the workflows, and committed.

The English words, the lists in the help pages, then all languages (languages.py); the workflows
for other models than SD1.5, and with a Chromium or Chrome on this machine the API form of all
workflows. Tests say which of them is stale.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

from ..audit.counting import Preset
from ..audit.presets import PRESETS
from ..demands.words import table
from ..drawing import markdown
from ..evaluation import protocols
from ..host.comfyui import enter_comfyui
from ..training.concepts import CONCEPTS, Concept
from . import assets, frontend, languages, workflow_variants
from .server import PACK, Server, place_models

WORDS = PACK / "locales" / "en" / "nodeDefs.json"
WORKFLOWS = PACK / "workflows"
SETTINGS = PACK / "docs" / "threat-model.md"
AUDITS = PACK / "docs" / "audits.md"
WORDY = re.compile("[a-z]+(,? [a-z]+)*")  # a choice in words, not the name of a file or a method
NAMES = ("method", "optimizer", "sampler_name", "scheduler")  # whose choices are names


def schemas() -> dict:
    """The schema of each node by its id, as it is where no operator has settings."""
    from ..nodes import NODES

    return {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in NODES}


def words(schemas: dict) -> dict:
    """The words of all nodes in the form of locales/<language>/nodeDefs.json."""
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                each.id: {"name": each.id, "tooltip": each.tooltip} for each in schema.inputs
            },
            "outputs": {
                str(place): {"name": each.display_name, "tooltip": each.tooltip}
                for place, each in enumerate(schema.outputs)
            },
        }
        for node_id, schema in sorted(schemas.items())
    }


def choices(schemas: dict) -> list[str]:
    """The choices of all nodes that are words, for web/choices.js to show in a language."""
    found = {
        str(choice)
        for schema in schemas.values()
        for each in schema.inputs
        if each.id not in NAMES
        for choice in getattr(each, "options", None) or ()
    }
    return sorted(filter(WORDY.fullmatch, found))


def help_page(schema, page: str) -> str:
    """A help page with its lists as the node, and the presets, are now.

    Lists, not tables: the frontend cuts off what is wider than its panel.
    """
    lists = {
        "concepts": ["**concept_preset**", *map(_concept, CONCEPTS.items())],
        "presets": ["**preset: counts**", *map(_preset, PRESETS.values())],
        "inputs": ["**Inputs**", *map(_input, schema.inputs)],
        "outputs": ["**Outputs**", *map(_output, schema.outputs)],
    }
    for name, (title, *lines) in lists.items():
        mark = f"<!-- {name}: python dev.py generate -->"
        before, found, after = page.partition(mark)
        if found:
            page = "\n".join(
                [
                    before + mark,
                    title,
                    "",
                    *lines,
                    "<!-- end -->" + after.partition("<!-- end -->")[2],
                ]
            )
    return page


def _concept(named: tuple[str, Concept]) -> str:
    """Each prompt, and what is drawn in its place where that is another one than before."""
    name, found = named
    told, before = [], ""
    for prompt, surrogate in found.pairs:
        told.append(prompt + (f" → {surrogate}" if surrogate and surrogate != before else ""))
        before = surrogate
    told = [*told, f"{len(found.near)} neighbours"] if found.near else told
    return f"- **`{name}`**: {'; '.join(told)}. Source: {found.source}"


def _input(each) -> str:
    default = getattr(each, "default", None)
    shown = (
        ""
        if default in (None, "")
        else f" (`{str(default).lower() if isinstance(default, bool) else default}`)"
    )
    return f"- **`{each.id}`**{shown}: {each.tooltip}"


def _output(each) -> str:
    return f"- **`{each.display_name}`**: {each.tooltip}"


def _preset(preset: Preset) -> str:
    scores = ", ".join(f"{score:g}" for score in sorted(set(preset.thresholds.values())))
    told = f"from: {scores}; unit: {preset.unit}; source: {preset.source}"
    return f"- **`{preset.name}`**: {preset.title}; {told}"


def settings_page(page: str) -> str:
    """The page of the operator's settings, with the list as the table of fields is now."""
    mark = "<!-- settings: python dev.py generate -->"
    before, _, after = page.partition(mark)
    return "\n".join([before + mark, *table(), "<!-- end -->" + after.partition("<!-- end -->")[2]])


def audits_page(page: str) -> str:
    """The page of audits, with the table of protocols as their files are now."""
    mark = "<!-- protocols: python dev.py generate -->"
    before, _, after = page.partition(mark)
    heads = ["protocol", *(head for head, _ in protocols.COLUMNS)]
    # without what aligns columns: they are wide
    lines = [re.sub(" +", " ", line) for line in markdown.table(heads, protocols.table())]
    lines[1] = re.sub("-+", "---", lines[1])
    return "\n".join([before + mark, *lines, "<!-- end -->" + after.partition("<!-- end -->")[2]])


def made() -> dict[Path, str]:
    """What each file should hold that is made without a browser."""
    found = schemas()
    pages = {node_id: PACK / "web" / "docs" / f"{node_id}.md" for node_id in found}
    files = {
        page: help_page(found[node_id], page.read_text(encoding="utf-8"))
        for node_id, page in pages.items()
    }
    files[AUDITS] = audits_page(AUDITS.read_text(encoding="utf-8"))
    files[SETTINGS] = settings_page(SETTINGS.read_text(encoding="utf-8"))
    files |= {
        WORKFLOWS / f"{name}.json": json.dumps(graph, indent=1) + "\n"
        for name, graph in workflow_variants.workflows(WORKFLOWS).items()
    }
    folders = dict.fromkeys(part for each in found.values() for part in each.category.split("/"))
    english = {
        "nodeDefs": words(found),
        "choices": choices(found),
        "main": {"nodeCategories": {name: name for name in folders}},
    }
    return files | {
        WORDS.with_stem(name): json.dumps(each, indent=2) + "\n" for name, each in english.items()
    }


def api_forms(executable: str) -> dict[Path, str]:
    """The API form of every workflow, as the frontend exports it."""
    with tempfile.TemporaryDirectory() as folder:
        place_models(assets.shared_models(), Path(folder))
        with Server(Path(folder)) as server, frontend.browsing(executable) as browser:
            page = frontend.opened(browser, server.url)
            names = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
            return {
                WORKFLOWS / "api" / f"{name}.json": (
                    json.dumps(frontend.api_form(page, name), indent=1) + "\n"
                )
                for name in names
            }


def main() -> int:
    enter_comfyui()
    executable = frontend.chromium()
    write(made())
    translate()
    for file, picture in workflow_variants.thumbnails(WORKFLOWS).items():
        file.write_bytes(picture)
    if executable:
        write(api_forms(executable))
    if not executable:
        print(
            "No Chromium or Chrome found: the API form of the workflows was left as it is.",
            file=sys.stderr,
        )
    return 0


def translate() -> None:
    """Make every language of the English files as they are now; say what falls back to them."""
    files = languages.made(PACK)
    write(files)
    for page in languages.left_over(PACK, files):
        page.unlink()
        print(f"removed: {page.relative_to(PACK)}")
    print(languages.report(PACK) or "Every language is complete.")


def write(files: dict[Path, str]) -> None:
    """Write those that are not as they should be, and say which."""
    for path, text in files.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"made: {path.relative_to(PACK)}")


if __name__ == "__main__":
    sys.exit(main())
