"""Where the nodes of a shipped workflow stand, and what is seen of it when it opens.

A plan says which nodes stand together. Sizes, places, groups and the saved view follow from it.
"""

import math
import re
from dataclasses import dataclass

LOADERS = (
    "CheckpointLoaderSimple",
    "UNETLoader",
    "ModelSamplingAuraFlow",
    "DualCLIPLoader",
    "CLIPLoader",
    "VAELoader",
)
BASE = 0  # in a plan: the loaders of the base model, which are others for each model
TITLE, HEADING = 30, 48  # pixels: what a node has above its place, and a group
APART, EDGE, BETWEEN = 24, 20, 30  # nodes in a column, a group around them, groups
# of a node below its title, where both renderings of the frontend have room for it, and for the
# pictures that it shows
HEIGHTS = {
    "CheckpointLoaderSimple": 102,
    "UNETLoader": 86,
    "ModelSamplingAuraFlow": 62,
    "DualCLIPLoader": 142,
    "CLIPLoader": 114,
    "VAELoader": 62,
    "CLIPVisionLoader": 62,
    "LoraLoaderModelOnly": 86,
    "CLIPTextEncode": 120,
    "EmptyLatentImage": 118,
    "EmptySD3LatentImage": 118,
    "EmptyHunyuanLatentVideo": 146,
    "KSampler": 262,
    "VAEDecode": 54,
    "LoadImageTextDataSetFromFolder": 106,
    "MakeTrainingDataset": 118,
    "PreviewAny": 260,
    "Seal, to pin": 138,  # one line, by its title
    "Report": 620,  # with four tables
    "PreviewImage": 420,
    "SaveImage": 420,
    "SaveAnimatedWEBP": 420,
    "MSL_LoadSafetyLora": 200,  # with buttons that copy digests, after a run
    "MSL_LoadTaskLora": 142,
    "MSL_MeasureQuality": 520,
    "MSL_ModularMerge": 232,
    "MSL_NudityAudit": 480,
    "MSL_ProbeSafety": 320,
    "MSL_AuditPromptSet": 620,
    "MSL_CompareAudits": 420,
    "MSL_ExtractSafetyLora": 420,
    "MSL_ExampleModel": 80,
    "MSL_ReportSafetyLora": 1100,
    "MSL_SealSafetyLora": 320,
    "MSL_SearchPrompts": 900,
    "MSL_TrainSafetyLora": 518,
    "MSL_TrainTaskLora": 466,
}
LETTER, LINE, AFTER, FRAME = 5.4, 17, 9, 50  # pixels of a note's text, of what is around it
SCALE = 0.75  # below 8 / 14 the frontend draws no text (its setting MinFontSizeForLOD)
CORNER = (80, 104)  # pixels of the canvas under the sidebar and the menu
OPENS = "msl_opens_at_its_view"  # web/view.js obeys it once, and takes it out


@dataclass(frozen=True)
class Group:
    """Nodes by their numbers, in columns from left to right, `width` pixels each.

    Without a title it is one node and has no frame: the note.
    """

    title: str
    columns: tuple[tuple[int, ...], ...]
    width: int = 340


Plan = tuple[tuple[Group, ...], ...]  # stacks of groups from left to right


def arrange(graph: dict, plan: Plan) -> None:
    """Put every node of a workflow in its place, and its groups and its view with them.

    Raises LookupError for a node that the plan does not name.
    """
    columns = [column for stack in plan for group in stack for column in group.columns]
    named = [node["id"] for column in columns for node in _of(graph, column)]
    left_out = [node["id"] for node in graph["nodes"] if node["id"] not in named]
    if left_out:
        raise LookupError(f"the plan has no place for the nodes {left_out}")
    graph["groups"], x = [], 0
    for stack in plan:
        y = 0
        for group in stack:
            y += _stand(graph, group, [x, y]) + BETWEEN
        x += max(map(_across, stack)) + BETWEEN
    offset = [round(pixels / SCALE) for pixels in CORNER]
    graph["extra"] |= {"ds": {"scale": SCALE, "offset": offset}, OPENS: True}


def _across(group: Group) -> int:
    return (group.width + EDGE) * len(group.columns) + EDGE if group.title else group.width


def _tall(node: dict, width: int) -> int:
    """Pixels of a node below its title; a note has as many as its text has lines."""
    if node["type"] != "MarkdownNote":
        return HEIGHTS.get(node.get("title"), HEIGHTS[node["type"]])
    text = re.sub(r"\]\([^)]*\)", "]", node["widgets_values"][0])  # links show their words
    lines = [math.ceil(len(line) * LETTER / (width - FRAME)) for line in text.split("\n")]
    return sum(each * LINE + AFTER for each in lines) + FRAME


def _stand(graph: dict, group: Group, at: list[int]) -> int:
    """Put a group and its nodes there; gives its height."""
    edge, heading = (EDGE, HEADING) if group.title else (0, 0)
    left, lowest = at[0] + edge, 0
    for column in group.columns:
        y = at[1] + heading + TITLE
        for node in _of(graph, column):
            node["pos"], node["size"] = [left, y], [group.width, _tall(node, group.width)]
            lowest = max(lowest, y + node["size"][1])
            y += node["size"][1] + APART + TITLE
        left += group.width + EDGE
    height = lowest + edge - at[1]
    if group.title:
        frame = {"id": len(graph["groups"]) + 1, "title": group.title, "color": "#3f789e"}
        graph["groups"].append(frame | {"bounding": [*at, _across(group), height], "flags": {}})
    return height


def _of(graph: dict, column: tuple[int, ...]) -> list[dict]:
    nodes = {node["id"]: node for node in graph["nodes"]}
    loaders = [node for node in nodes.values() if node["type"] in LOADERS]
    return [each for number in column for each in (loaders if number == BASE else [nodes[number]])]
