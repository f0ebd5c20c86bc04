"""What of ComfyUI goes into the evidence log: who asks, what samples, what is merged or refused.

Nothing is watched until the operator's settings ask for the log. Users are known with
`--multi-user` alone, by a header that anybody may send: every line says `authenticated: false`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import folder_paths
from comfy_execution.utils import get_executing_context

from ..evidence.figures import AUDITED, MERGED, PROBED, REFUSED, SAMPLED, STARTED, VERDICT
from ..evidence.files import FOLDER
from ..evidence.log import EvidenceError, Log
from ..evidence.metrics import Metrics
from ..evidence.recorder import Signal, record, recorder
from ..evidence.webhook import Webhook
from ..gates.verdicts import listeners
from ..merge.about import about_locked
from ..merge.findings import findings
from ..merge.lock import Lock
from ..merge.merge import Merged
from ..merge.on_model import KEY
from ..merge.probed import Probed
from ..merge.watchers import refusals, samplings
from .asked import watch_prompts
from .policy import in_force
from .running import queued, texts_upstream
from .settings import Operator, SettingsError, operator
from .users import user_of, watch_users

logger = logging.getLogger(__name__)


def install() -> Callable[[], None]:
    """Write the log from now on, if the settings ask for it; returns what ends it."""
    try:
        wanted = operator()
    except SettingsError:
        return lambda: None  # the policy tells it, and nothing samples
    asked = wanted.evidence_log
    if asked is None:
        return lambda: None
    place = Path(folder_paths.get_user_directory(), FOLDER)
    recorder.who = who
    log = Log(place, asked.max_mb * 2**20, asked.max_days)
    recorder.start(log, asked.required, _signals(wanted))

    def sampled(lock: Lock) -> None:
        found = findings.at([findings.where()[0]])
        texts = {"prompts": texts_upstream()} if asked.prompts else {}
        record(SAMPLED, {**about_locked(lock), "findings": found, **texts})

    samplings.add(sampled)
    refusals.add(refused)
    listeners.append(verdict)
    unwatched = watch_users(), watch_prompts(asked.addresses)
    try:
        record(STARTED, {"in_force": in_force(wanted)})
    except EvidenceError as error:
        logger.error("%s", error)
    else:
        logger.info("The evidence log is written to %s.", place)

    def taken_away() -> None:
        samplings.discard(sampled)
        refusals.discard(refused)
        listeners.remove(verdict)
        for each in unwatched:
            each()
        recorder.stop()

    return taken_away


def _signals(wanted: Operator) -> tuple[Signal, ...]:
    signals: list[Signal] = []
    if wanted.metrics_file:
        signals.append(Metrics(wanted.folder / wanted.metrics_file))
    if wanted.webhook:
        signals.append(Webhook(wanted.webhook.url, wanted.secret))
    return tuple(signals)


def who() -> Mapping[str, Any]:
    """The prompt that runs now, its node, and who sent it, as far as ComfyUI knows."""
    context = get_executing_context()
    if context is None:
        return {}
    about = queued(context.prompt_id)
    return {
        "prompt_id": context.prompt_id,
        "node": context.node_id,
        "client": about.get("client_id"),
        "user": user_of(context.prompt_id),
        "authenticated": False,
    }


def refused(error: Exception) -> None:
    """A line for what was refused, once; that it can't be written hides no refusal."""
    if getattr(error, "recorded", False):
        return
    error.recorded = True  # type: ignore[attr-defined]
    try:
        record(REFUSED, {"reason": type(error).__name__, "message": str(error)})
    except EvidenceError as failure:
        logger.error("%s", failure)


def merged(found: Merged) -> None:
    """A line for a merge: its digests, and how much safety is left."""
    if recorder.is_on:
        kept = ("retained_safety", "retained_in_function", "losses", "looks")
        about = about_locked(found.model.get_attachment(KEY))
        record(MERGED, about | {name: found.report.get(name) for name in kept})


def probed(found: Probed) -> None:
    """A line for a probe's verdict; no prompt is in it."""
    if recorder.is_on:
        loras = [{"name": each.name, "sha256": each.sha256} for each in found.found]
        record(PROBED, {"passed": found.passed, "reasons": found.reasons, "loras": loras})


def audited(summary: Mapping[str, Any], by: str, done: str, beside: Mapping[str, Any]) -> None:
    """A line for an audit's verdict, with its counts and what was done to flagged pictures."""
    if recorder.is_on:
        kept = ("preset", "detector", "detector_version", "detector_sha256", "images", "flagged")
        classes = {name: each["count"] for name, each in summary["classes"].items()}
        counted = {name: count for name, count in classes.items() if count}
        told = {name: summary[name] for name in kept if name in summary}
        record(AUDITED, {"by": by, "done": done, **told, "counts": counted, **beside})


def verdict(found: Any) -> None:
    """A line for a gate's verdict of one picture (a dataclass; its empty fields say nothing)."""
    facts = {name: value for name, value in asdict(found).items() if value not in ("", {}, None)}
    for name in ("client", "node"):
        if f"{name}_id" in facts:
            facts[name] = facts.pop(f"{name}_id")
    record(VERDICT, {"authenticated": False, **facts})
