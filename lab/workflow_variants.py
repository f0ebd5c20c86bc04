"""The shipped workflows: those for SD1.5, and what is made of them for the models of VARIANTS.

Nodes, links and values of SD1.5's are made by hand; `python dev.py generate` puts them in their
places (plans.py). Of those in KINDS it makes one for each model, with its loaders, its latents and
its sampler.
"""

import copy
import io
import json
from dataclasses import astuple
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .layout import arrange
from .plans import MERGE, PLANS, SAFETY, TASK
from .variants import VARIANTS, Loader, Variant

KINDS = (MERGE, SAFETY, TASK)
ASKED = ("steps", "cfg", "sampler_name", "scheduler")  # the fields of a Sampling, for KSampler
CARD = 320  # pixels across a thumbnail


def names() -> dict[tuple[str, Variant], str]:
    """The file name of every kind for every variant: the title of its card, not cut there."""
    return {
        (kind, each): f"{each.title} - {kind.split(maxsplit=1)[1]}"
        for kind in KINDS
        for each in VARIANTS
    }


def workflows(folder: Path) -> dict[str, dict]:
    """name -> workflow, of SD1.5's kinds and of every kind for every variant."""
    drawn = {
        kind: json.loads((folder / f"{kind}.json").read_text(encoding="utf-8")) for kind in PLANS
    }
    made = {kind: (kind, graph) for kind, graph in drawn.items()} | {
        name: (kind, adapted(drawn[kind], variant)) for (kind, variant), name in names().items()
    }
    for kind, graph in made.values():
        arrange(graph, PLANS[kind])
    return {name: graph for name, (_, graph) in made.items()}


def adapted(drawn: dict, variant: Variant) -> dict:
    """SD1.5's workflow with the loaders, latents and settings of another model."""
    family, graph = _family(variant), copy.deepcopy(drawn)
    width, height = family.size
    size = {"width": width, "height": height}
    sampling = dict(zip(ASKED, astuple(family.sampling), strict=True))
    sampling["cfg"] = json.loads(f"{family.sampling.guidance:g}")  # 7, as the frontend writes 7.0
    for node in list(graph["nodes"]):
        if node["type"] == "CheckpointLoaderSimple":
            _load(graph, node, variant)
        elif node["type"] == "EmptyLatentImage":
            kind, more = variant.latent
            count = values(node)["batch_size"] if not more else 1
            _become(node, kind, size | more | {"batch_size": count})
        elif node["type"] == "SaveImage" and variant.video:
            kind, more = variant.video
            _become(node, kind, {"filename_prefix": values(node)["filename_prefix"]} | more)
        elif node["type"] == "KSampler":
            fill(node, sampling)
        elif node["type"].startswith("MSL_Train"):
            side = min(width, height)
            fill(node, variant.training | {"resolution": side, "preview_size": side})
    return graph


def _family(variant: Variant):
    """The row of a variant's family, by the name of its file."""
    from ..host.families import of_class

    return of_class(variant.family, next(each.name for each in variant.loaders[0].files))


def _load(graph: dict, old: dict, variant: Variant) -> None:
    """Put a variant's loaders in the place of Load Checkpoint, and their files into the note."""
    if variant.loaders[0].kind == old["type"]:
        _become(old, old["type"], variant.loaders[0].widgets)
        old["properties"]["models"] = [each.listed() for each in variant.loaders[0].files]
    else:
        graph["nodes"].remove(old)
        last: dict[str, dict] = {}
        for loader in variant.loaders:
            node = _added(graph, loader)
            if loader.part in last:
                _join(graph, last[loader.part], node)
            last[loader.part] = node
        for slot, part in enumerate(("MODEL", "CLIP", "VAE")):
            source = last[part]
            for link in graph["links"]:
                if link[1] == old["id"] and link[2] == slot:
                    link[1:3] = [source["id"], 0]
                    source["outputs"][0]["links"].append(link[0])
    (note,) = (node for node in graph["nodes"] if node["type"] == "MarkdownNote")
    note["widgets_values"] = [f"{note['widgets_values'][0]}\n\n{_files(variant)}"]


def _added(graph: dict, loader: Loader) -> dict:
    """A new node for a loader."""
    graph["last_node_id"] += 1
    changes = not loader.files
    node = {
        "id": graph["last_node_id"],
        "type": loader.kind,
        "pos": [0, 0],
        "size": [0, 0],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": loader.part.lower(), "type": loader.part, "link": None}] * changes,
        "outputs": [{"name": loader.part, "type": loader.part, "links": []}],
        "properties": {"models": [each.listed() for each in loader.files]} if loader.files else {},
    }
    _become(node, loader.kind, loader.widgets)
    graph["nodes"].append(node)
    return node


def _join(graph: dict, source: dict, target: dict) -> None:
    """Lead the source's only output into the target's only input."""
    graph["last_link_id"] += 1
    link = [graph["last_link_id"], source["id"], 0, target["id"], 0, target["inputs"][0]["type"]]
    graph["links"].append(link)
    source["outputs"][0]["links"] = [link[0]]
    target["inputs"][0]["link"] = link[0]


def _files(variant: Variant) -> str:
    """The files that the loaders name, where they belong and where they are."""
    files = [each for loader in variant.loaders for each in loader.files]
    listed = (f"- models/{each.folder}: [{each.name}]({each.listed()['url']})" for each in files)
    return "\n".join((f"**The files of {variant.title}**", "", *listed, "", variant.note)).strip()


def values(node: dict) -> dict[str, object]:
    """The values of a node's widgets by their names; KSampler's has one more for its seed."""
    names = [each["widget"]["name"] for each in node["inputs"] if "widget" in each]
    if node["type"] == "KSampler":
        names.insert(1, "control_after_generate")
    return dict(zip(names, node["widgets_values"], strict=True))


def fill(node: dict, widgets: dict[str, object]) -> None:
    """Set those of a node's widgets that it has."""
    node["widgets_values"] = [widgets.get(name, old) for name, old in values(node).items()]


def _become(node: dict, kind: str, widgets: dict[str, object]) -> None:
    """Make a node one of another kind with these widgets; its links stay."""
    node["type"] = kind
    node["properties"]["Node name for S&R"] = kind
    node["widgets_values"] = list(widgets.values())
    node["inputs"] = [each for each in node["inputs"] if "widget" not in each]


def thumbnails(folder: Path) -> dict[Path, bytes]:
    """file -> picture, of every kind for every variant."""
    return {
        folder / f"{name}.jpg": thumbnail(folder / f"{kind}.jpg", variant.title)
        for (kind, variant), name in names().items()
    }


def thumbnail(drawn: Path, title: str) -> bytes:
    """A card's picture: that of SD1.5's workflow, small, with the model's name on it."""
    picture = Image.open(drawn)
    picture = picture.resize((CARD, picture.height * CARD // picture.width))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(CARD / 11)
    wide, high = pen.textbbox((0, 0), title, font)[2:]
    left, top = CARD - wide - 16, picture.height - high - 12
    pen.rectangle((left, top, CARD, picture.height), fill="#e8593c")
    pen.text((left + 8, top + 5), title, "white", font)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()
