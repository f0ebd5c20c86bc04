"""Choices and ranges are checked where they act: an unknown word is never a lenient one."""

import dataclasses
import math
import re

import formats
import merging
import pytest
import torch
from comfy_api.latest import io
from modular_safety_lora.audit import censor, film_audit, presets, rules
from modular_safety_lora.audit.pairing import Naming
from modular_safety_lora.commands.language import Pages
from modular_safety_lora.evaluation import job, prompt_set
from modular_safety_lora.evaluation.protocols import Following
from modular_safety_lora.evaluation.quality.spqr import Scale
from modular_safety_lora.experiment.settings import Asked
from modular_safety_lora.extraction.settings import Extraction
from modular_safety_lora.function.limits import Limits
from modular_safety_lora.host.lending import computing_in
from modular_safety_lora.host.sampling_settings import Sampling
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.merge import merge, on_model
from modular_safety_lora.merge import settings as of_merges
from modular_safety_lora.modules.errors import SafetyError
from modular_safety_lora.modules.sealing import Sealing
from modular_safety_lora.nodes import NODES
from modular_safety_lora.options.choices import ChoiceError
from modular_safety_lora.options.table import rows
from modular_safety_lora.provenance.saving import Saving
from modular_safety_lora.reporting.settings import Asking
from modular_safety_lora.searching.settings import Searching
from modular_safety_lora.training import prompting
from modular_safety_lora.training.engine.adapters import AdapterSettings
from modular_safety_lora.training.keeping import Keeping
from modular_safety_lora.training.settings import Erasure, Settings

NEEDED = {rules.Rules: {"preset": presets.PRESETS["strict"]}, Sealing: {"concept": "nudity"}}
KINDS = [
    *(Asked, Asking, Pages, Scale, Searching),
    *(
        rules.Rules,
        rules.Counting,
        censor.Acting,
        film_audit.Watching,
        Naming,
        Sampling,
        job.Kept,
        Limits,
        Sealing,
    ),
    *(prompt_set.Defaults, prompt_set.Selection, Following, of_merges.Merging, of_merges.Asked),
    *(of_merges.AfterProbe, of_merges.Strengths, of_merges.EachAlone, prompting.Erased),
    *(
        Extraction,
        prompting.Anchoring,
        prompting.Fitting,
        Settings,
        AdapterSettings,
        Erasure,
        Keeping,
        Saving,
    ),
]

UNKNOWN = ("Refuse", "REPORT", " refuse", "", None, 1)


@pytest.fixture(scope="module")
def parts(checkpoint, shapes):
    """The model, a safety module, and a task that takes it back."""
    tensors = formats.Lora(shapes, 1).tensors()
    against = merge.Task(merging.task(tensors, "against.safetensors"), -1.0)
    return checkpoint[0], merging.safety(tensors), against


@pytest.mark.parametrize("word", UNKNOWN)
@pytest.mark.parametrize("name", ["foreign", "on_conflict"])
def test_a_word_that_a_choice_does_not_have_stops_the_merge(parts, name, word):
    model, safety, against = parts
    shown = {"foreign": "foreign_changes"}.get(name, name)
    with pytest.raises(ChoiceError, match=f"{shown} is {word!r}; it must be one of re"):
        merge.merge(model, [safety], [against], **{name: word})


def test_a_lock_of_another_word_refuses(parts):
    model, safety, against = parts
    lock = merge.merge(model, [safety], [against]).model.get_attachment(on_model.KEY)
    for word in UNKNOWN:
        with pytest.raises(SafetyError, match="is not whole"):
            dataclasses.replace(lock, policy=word).judge(["a finding"], "")


@pytest.mark.parametrize("mode", ["Anchored", "sequential", ""])
def test_a_task_that_was_trained_in_an_unknown_way_is_refused(parts, mode):
    model, safety, against = parts
    odd = dataclasses.replace(against.module, metadata={"msl.safety_mode": mode})
    with pytest.raises(ChoiceError, match=f"against.safetensors: msl.safety_mode is {mode!r}"):
        merge.merge(model, [safety], [merge.Task(odd)])


def test_a_module_in_the_others_place_is_refused(parts):
    model, safety, against = parts
    with pytest.raises(ChoiceError, match="against.* role of a safety LoRA is 'task'"):
        merge.merge(model, [safety, against.module])
    with pytest.raises(ChoiceError, match="safety.* role of a task LoRA is 'safety'"):
        merge.merge(model, [safety], [merge.Task(dataclasses.replace(safety, sha256="x"))])


def test_a_precision_that_there_is_not_is_an_error(parts):
    with pytest.raises(ValueError, match="precision is 'fp8'; it must be one of auto, bf16"):
        computing_in(parts[0], "fp8")


def own(kind: type) -> list:
    """The rows that are fields of a class, and not of one in it."""
    return [row for row in rows(kind).values() if row.field in kind.__dataclass_fields__]


def wrong(row) -> list:
    """Values that a row must not take."""
    if row.lines:
        return ["one text", [1]]
    if row.choices and not row.other:
        return [*UNKNOWN, row.default.upper()]
    if isinstance(row.default, (bool, str)):
        return [None, 0.5]
    ends = [] if row.low is None else [row.low - 1]
    return [math.nan, math.inf, -math.inf, True, "1", *ends, *([row.high + 1] if row.high else [])]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_row_takes_what_it_must_not(kind):
    needed = NEEDED.get(kind, {})
    assert own(kind) and kind(**needed)
    for row in own(kind):
        for value in wrong(row):
            with pytest.raises(ValueError, match=rf"\b{row.name} is "):
                kind(**needed | {row.field: value})


def test_no_row_is_left_out_of_that():
    rooms = [path for path in PACK.iterdir() if path.name[0] != "." and path.name != "tests"]
    files = [path for room in rooms for path in room.rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    written = len(re.findall(r"^    \w+: .+ = option\($", text, re.MULTILINE))
    written += len(re.findall(r"^    \w+: .+ = option\(.+\)$", text, re.MULTILINE))
    assert written == sum(len(own(kind)) for kind in KINDS)


# a node, an input, and a value that it does not have
DOORS = [
    ("MSL_ModularMerge", "foreign_changes", "Report"),
    ("MSL_ModularMerge", "on_conflict", "Refuse"),
    ("MSL_NudityAudit", "action", "blurr"),
    ("MSL_NudityAudit", "preset", "Strict"),
    ("MSL_NudityAudit", "second_opinion", "None"),
    ("MSL_NudityAudit", "threshold", math.nan),
    ("MSL_NudityAudit", "threshold", 1.5),
    ("MSL_ProbeSafety", "action", "Stop"),
    ("MSL_ProbeSafety", "adaptive_steps", 21),
    ("MSL_ProbeSafety", "seed", -1),
    ("MSL_AuditPromptSet", "keep", "flagged"),
    ("MSL_AuditPromptSet", "sampler_name", "Euler"),
    ("MSL_AuditPromptSet", "scheduler", "Normal"),
    ("MSL_AuditPromptSet", "cfg", math.nan),
    ("MSL_AuditPromptSet", "width", 8),
    ("MSL_AuditPromptSet", "pictures_per_prompt", 0),
    ("MSL_AuditPromptSet", "protocol", "I2P"),
    ("MSL_LoadTaskLora", "strength_model", math.nan),
    ("MSL_ReportSafetyLora", "concept_preset", "Nudity"),
    ("MSL_ReportSafetyLora", "pictures_per_prompt", 0),
    ("MSL_SealSafetyLora", "strength", 0.0),
    ("MSL_CompareAudits", "names", None),
    ("MSL_TrainSafetyLora", "method", "ESD"),
    ("MSL_TrainSafetyLora", "concept_preset", "Nudity"),
    ("MSL_TrainSafetyLora", "resolution", 8),
    ("MSL_TrainTaskLora", "safety_mode", "Detached"),
]
NAMES = ("save_as", "lora_name", "prompts", "name")  # of files: no rows
LISTED = ("MSL_TrainTaskLora",)  # gets every input as a list


@pytest.mark.parametrize(("node", "name", "value"), DOORS)
def test_a_node_refuses_what_its_input_does_not_have_before_it_does_anything(node, name, value):
    (found,) = [each for each in NODES if each.GET_SCHEMA().node_id == node]
    inputs = [each for each in found.GET_SCHEMA().inputs if not isinstance(each, io.WidgetInput)]
    inputs += [each for each in found.GET_SCHEMA().inputs if each.id in NAMES]
    sockets = {each.id: None for each in inputs if not each.optional}
    given = {**sockets, name: [value] if node in LISTED else value}
    with pytest.raises(ValueError, match=f"{name} is |no audit preset"):
        found.execute(**given)


@pytest.mark.parametrize("node", ["MSL_ModularMerge", "MSL_NudityAudit"])
def test_an_input_that_a_node_does_not_have_is_no_default(node):
    (found,) = [each for each in NODES if each.GET_SCHEMA().node_id == node]
    sockets = {"images": None} if node == "MSL_NudityAudit" else {"model": None, "safety": None}
    with pytest.raises(TypeError, match="There is no input 'acton'; there are "):
        found.execute(**sockets, acton="stop")


def test_the_functions_refuse_it_too(parts):
    model, safety, _ = parts
    picture, none = torch.zeros(1, 8, 8, 3), {"images": []}
    for refused in (
        lambda: merge.merge(model, [safety], foreign="Report"),
        lambda: censor.apply(picture, none, "stop"),
        lambda: prompting.Erased(concept_preset="Nudity"),
        lambda: job.AuditJob("x", None, None, None, None, keep="flagged"),
        lambda: rules.Rules(presets.PRESETS["strict"], provider="gpu"),
    ):
        with pytest.raises(ChoiceError, match="it must be one of"):
            refused()
