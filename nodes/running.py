"""The node that runs now, and what flows into it: an audit learns which sampling to ask about."""

import hashlib
import json
from collections.abc import Hashable, Mapping

from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

import nodes as host

from ..merge.findings import OUTSIDE, findings


def install() -> None:
    """From now on what locks find belongs to the node that samples, in the prompt that runs."""
    findings.where = here


def here() -> tuple[Hashable, Hashable]:
    """(place, run) of the node that runs now.

    The place is made of its class and inputs and those of all that flows into it; the run is the
    prompt's id.
    """
    context = get_executing_context()
    if context is None:
        return OUTSIDE
    graph = _graph(context.prompt_id)
    node = _root(context.node_id, graph)
    return (place_of(node, graph) if node else context.prompt_id), context.prompt_id


def upstream() -> list[Hashable]:
    """The places of the node that runs now and of every node that flows into it."""
    node, graph = now()
    if node is None:
        context = get_executing_context()
        return [OUTSIDE[0] if context is None else context.prompt_id]
    places: dict[str, str] = {}
    place_of(node, graph, places)
    return [*places.values(), get_executing_context().prompt_id]


def now() -> tuple[str | None, Mapping[str, Mapping]]:
    """The node that runs now and its graph in the API's form; None where that is not known."""
    context = get_executing_context()
    if context is None:
        return None, {}
    graph = _graph(context.prompt_id)
    return _root(context.node_id, graph), graph


def links(node: str, graph: Mapping[str, Mapping]) -> list[tuple[str, int]]:
    """What flows into a node: (node, output)."""
    values = graph[node].get("inputs", {}).values()
    return [(value[0], value[1]) for value in values if _is_link(value, graph)]


def place_of(node: str, graph: Mapping[str, Mapping], known: dict[str, str] | None = None) -> str:
    """A digest of a node's class and inputs, links followed back: equal for equal work."""
    known = {} if known is None else known
    if node not in known:
        known[node] = ""  # a graph that goes in a circle does not run; here it ends
        inputs = {
            name: (
                ["from", place_of(value[0], graph, known), value[1]]
                if _is_link(value, graph)
                else value
            )
            for name, value in graph[node].get("inputs", {}).items()
        }
        text = json.dumps([graph[node].get("class_type"), inputs], sort_keys=True, default=repr)
        known[node] = hashlib.sha256(text.encode()).hexdigest()
    return known[node]


def _is_link(value: object, graph: Mapping[str, Mapping]) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and value[0] in graph
    )


def texts_upstream() -> list[str]:
    """What the nodes that make conditionings on the way to the running one were typed."""
    node, graph = now()
    if node is None:
        return []
    places: dict[str, str] = {}
    place_of(node, graph, places)
    found = []
    for each in places:
        kind = host.NODE_CLASS_MAPPINGS.get(graph[each].get("class_type"))
        if "CONDITIONING" in getattr(kind, "RETURN_TYPES", ()):
            values = graph[each].get("inputs", {}).values()
            found += [value for value in values if isinstance(value, str)]
    return found


def queued(prompt_id: str) -> Mapping[str, object]:
    """What came with a prompt that runs on this server, such as its client."""
    item = _item(prompt_id)
    return item[3] if item else {}


def _graph(prompt_id: str) -> Mapping[str, Mapping]:
    """The graph of a prompt that runs on this server; empty where another program executes it."""
    item = _item(prompt_id)
    return item[2] if item else {}


def _item(prompt_id: str) -> tuple | None:
    server = getattr(PromptServer, "instance", None)
    running = server.prompt_queue.get_current_queue_volatile()[0] if server is not None else []
    return next((item for item in running if item[1] == prompt_id), None)


def _root(node: str, graph: Mapping[str, Mapping]) -> str | None:
    """The node of the queued graph that a node is, or whose copy it is, or that made it.

    What a loop runs is a copy, and the host knows of which node: `12.0.0.0_5` is `5`'s, in the loop
    that `12` starts. Where it knows of none, `12.0.0.3` comes from `12`.
    """
    shown = get_progress_state().dynprompt.get_display_node_id(node)
    return next((name for name in (node, shown, node.split(".")[0]) if name in graph), None)
