"""Modular Merge: the loaded weights with every module's change added (arXiv 2412.00357).

    W* = W0 + dW_safety + sum_i w_i dW_task_i

The sum is checked before the model is handed on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from comfy.model_patcher import ModelPatcher

from ..function.limits import DEFAULT, Limits
from ..function.number import Number
from ..host.bases import origin
from ..host.comfy_types import Clip
from ..modules.files import LoraFile
from ..options.choices import chosen
from .arms import Arms
from .conflicts import CONFLICTS
from .entries import Task, base_of, check_companions, read_entries
from .fasten import load_as_held
from .identity import identity_of, tasks_of
from .in_function import counted_from, in_function
from .locking import Terms, lock_networks
from .measure import measure
from .networks import networks_of
from .on_model import check_given, weight_free_patches
from .report import Json, about_base, build_report, interference_of
from .settings import FOREIGN

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merged:
    """Clones of the inputs with every module on them, and the report as a JSON-ready dict.

    `interference` is the retained safety of each weight with one module alone, by the module's name
    (and, where there are several safety modules, the name of the one it pulls against). `computed`
    is what the network computes of each safety module's prompts.
    """

    model: ModelPatcher
    clip: Clip | None
    report: Json
    interference: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    computed: Mapping[str, Number] = field(default_factory=dict)


def merge(
    model: ModelPatcher,
    safety: Sequence[LoraFile],
    tasks: Sequence[Task] = (),
    clip: Clip | None = None,
    foreign: str = "refuse",
    *,
    on_conflict: str = "report",
    limits: Limits = DEFAULT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Merged:
    """Add safety and task modules to a ComfyUI MODEL (and CLIP).

    Every change is taken against the loaded weights. Raises SafetyError when a safety tensor does
    not land, when safety modules pull against each other, when a task module fits nowhere or
    wrongly or needs another safety module, and with `foreign="refuse"` when something on the model
    can't be measured.

    `on_conflict` says what happens when task modules pull against a safety change: `report` is the
    plain sum, `refuse` raises SafetyError under the thresholds, `project` takes out of each task
    change, weight by weight, the part that points against a safety change. With a CLIP what is left
    is measured on the safety modules' own prompts too, in what the network computes, under
    `limits`. The inputs stay as they are. `progress` is called with what is done and in all.
    """
    conflict = CONFLICTS[chosen(on_conflict, CONFLICTS, "on_conflict")]
    policy = chosen(foreign, FOREIGN, "foreign_changes")
    found = check_given(model, clip, policy)
    check_companions(safety, tasks)
    base = base_of(model, clip)
    entries = read_entries(safety, tasks, base)  # dW_safety, and w_i dW_task_i

    networks = networks_of(model, clip, entries)
    sums = measure(networks, base, conflict, progress)
    loaded_from, others = origin(model), tasks_of(networks.patchers, tasks, on_conflict)
    for network in networks:
        network.put_on()  # W*

    identity = identity_of(loaded_from, networks.patchers, found, safety, tasks=others)
    arms = Arms.of(networks, loaded_from, identity)
    merged = load_as_held(networks.model.merged, networks.model.at_use)
    function = in_function(merged, arms, limits, counted_from(networks.weights, progress))

    report = build_report(sums, function, found) | about_base(loaded_from, safety)
    report |= {each.rounding: each.formats for each in networks if each.formats}
    report |= {"other_patches": weight_free_patches(model), "on_conflict": on_conflict}
    for warning in report["base_warnings"]:
        logger.warning("Modular Merge: %s", warning)
    conflict.judge(report)
    _warn_of_losses(report["losses"])
    terms = Terms.of(safety, policy, loaded_from, report["base_warnings"], others)
    lock_networks(networks, terms, arms, sums, function)
    interference, computed = interference_of(sums.names, sums.ledger), function.by_name(sums.names)
    return Merged(merged, networks.merged_clip, report, interference, computed)


def _warn_of_losses(lost: Sequence[str]) -> None:
    if lost:
        logger.warning(
            "Modular Merge: retained safety is out of bounds in %d measures (first: %s).",
            len(lost),
            lost[0],
        )
