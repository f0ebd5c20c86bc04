"""What made the pictures that a node gets: read off the graph, and of the locks that were asked."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import nodes as host

from ..audit.about import FAULTS, INTACT, NONE, PARTLY, PICTURES, UNKNOWN, about
from ..merge.findings import FAULTS as FOUND
from ..merge.findings import HELD, OTHER_PATCHES, findings
from .running import links, now, place_of, upstream

PIXELS = {"IMAGE", "LATENT", "VIDEO", "*"}
SAMPLED = {"MODEL", "GUIDER"}  # what a node that samples is given
FILES = ("ckpt_name", "unet_name")  # the inputs of ComfyUI's loaders that name a base
Graph = Mapping[str, Mapping]


def about_pictures() -> dict:
    """An audit's `about` for the pictures that the running node gets.

    Each node that sampled on their way is asked for: which model it had is known of one with a
    lock; of another the names that the graph has of its files.
    """
    node, graph = now()
    sampled = [] if node is None else _samplers(node, graph)
    held = [findings.at([place_of(each, graph)], HELD) for each in sampled]
    models: list[dict] = []
    for each, told in zip(sampled, held, strict=True):
        models += [json.loads(text) for text in told] or [_named(each, graph)]
    unlike = [each for place, each in enumerate(models) if each not in models[:place]]
    return about(unlike, _state(held))


def beside_pictures() -> dict[str, Any]:
    """What an audit's report says beside its pictures: what locks found, patches, the model."""
    places = upstream()
    found: dict[str, Any] = {kind: findings.at(places, kind) for kind in (FOUND, OTHER_PATCHES)}
    return found | {"about": about_pictures()}


def loras_upstream() -> list[dict]:
    """The LoRAs that stock loaders put on what flows into the running node."""
    node, graph = now()
    return [] if node is None else _loras(node, graph)


def _state(held: list[list[str]]) -> str:
    if findings.at(upstream(), FOUND):
        return FAULTS
    if not held:
        return PICTURES
    if all(held):
        return INTACT
    if findings.forgot:
        return UNKNOWN
    return PARTLY if any(held) else NONE


def _samplers(node: str, graph: Graph) -> list[str]:
    """The nodes that sampled the pictures that flow into a node, the last first."""
    found: dict[str, None] = {}
    seen, left = {node}, [node]
    while left:
        here = left.pop()
        for source, slot in links(here, graph):
            if _type(source, slot, graph) not in PIXELS or source in seen:
                continue
            seen.add(source)
            left.append(source)
            if any(_type(*each, graph) in SAMPLED for each in links(source, graph)):
                found[source] = None
    return list(found)


def _type(node: str, slot: int, graph: Graph) -> str:
    """The type of a node's output; `*` where it is not known."""
    kind = host.NODE_CLASS_MAPPINGS.get(graph[node].get("class_type"))
    types = getattr(kind, "RETURN_TYPES", ())
    return str(types[slot]) if isinstance(slot, int) and slot < len(types) else "*"


def _named(node: str, graph: Graph) -> dict:
    """A model without a lock, as far as the graph names its files."""
    names = [
        inputs[name]
        for inputs in _inputs(node, graph)
        for name in FILES
        if isinstance(inputs.get(name), str)
    ]
    return {"base": " and ".join(names) or None, "base_sha256": None, "loras": _loras(node, graph)}


def _loras(node: str, graph: Graph) -> list[dict]:
    """The LoRAs that nodes of others load on the way to a node; the pack's own are in a lock."""
    given = [
        (inputs["lora_name"], inputs.get("strength_model"))
        for inputs in _inputs(node, graph)
        if isinstance(inputs.get("lora_name"), str)
    ]
    return [
        {
            "name": name,
            "role": "other",
            "sha256": None,
            "strength": strength if isinstance(strength, float | int) else None,  # or linked
        }
        for name, strength in given
    ]


def _inputs(node: str, graph: Graph) -> Iterator[Mapping]:
    """The inputs of every node of others that flows into a node, the first loaded first."""
    places: dict[str, str] = {}
    place_of(node, graph, places)
    for each in reversed(places):
        if not str(graph[each].get("class_type")).startswith("MSL_"):
            yield graph[each].get("inputs", {})
