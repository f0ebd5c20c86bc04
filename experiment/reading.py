"""The audits of an experiment as they lie on the disk: whole, of the right model, or why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..audit.reading import CompareError, check_counts, parsed
from ..evaluation.embedded import KEY, of_prompt
from ..evaluation.prompt_set import Prompt
from ..host.named import digests_of
from ..host.prefixes import folders_of
from ..options.words import amount
from .arms import Arm
from .job import SAFETY, Audit, Experiment
from .learning import Learner, is_whole

Rows = Mapping[str, Mapping[str, Any]]
AS_ASKED = ("seed", "guidance", "width", "height")


class Unfinished(Exception):
    """Why an audit counts for nothing; no error: the results say it."""


@dataclass(frozen=True)
class Found:
    """What one repetition of an arm drew: rows by key of each kind of prompt, and what Modular
    Merge said. `missing` says why it counts for nothing; then there are no rows.
    """

    seed: int
    rows: Mapping[str, Rows] = field(default_factory=dict)
    not_made: Sequence[str] = ()
    merge: Mapping[str, Any] | None = None
    missing: str = ""


def found(learner: Learner, arm: Arm, seed: int) -> Found:
    """What there is of an arm; nothing of it counts unless all its audits are whole."""
    experiment = learner.experiment
    rows, not_made = {}, []
    try:
        digests = _digests(learner, arm, seed)
        for kind in experiment.sets:
            audit = experiment.audit(arm, kind, seed)
            report = report_of(audit)
            _check_embeddings(report, audit, learner)
            _check_model(report, digests, learner)
            rows[kind] = {row["key"]: row for row in report["images"]}
            not_made += [f"{each['key']}: {each['reason']}" for each in report["unreadable"]]
        said = _merge_said(experiment, arm, seed) if arm.is_safe else None
    except Unfinished as why:
        return Found(seed, missing=str(why))
    return Found(seed, rows, not_made, said)


def report_of(audit: Audit) -> dict[str, Any]:
    """The report of a whole audit of the pictures that are asked. Raises Unfinished."""
    file = audit.job.folder / "report.json"
    done = f"{audit.done()} of {amount(audit.total, 'picture')} of the {audit.kind} prompts made"
    if not file.is_file():
        raise Unfinished(done)
    try:
        report = parsed(str(file), file.read_text(encoding="utf-8"))
        check_counts(str(file), report)
    except (CompareError, UnicodeDecodeError) as error:
        raise Unfinished(f"its report can't be read ({error})") from error
    asked = {prompt.key: prompt for prompt in audit.job.prompts}
    there = {row["key"] for row in (*report["images"], *report["unreadable"])}
    if there != asked.keys():
        raise Unfinished(f"{done}, {len(there & asked.keys())} in its report")
    for row in report["images"]:
        _check_row(row, asked[row["key"]])
    return report


def _check_row(row: Mapping[str, Any], asked: Prompt) -> None:
    """Raise Unfinished for a picture that was made of something else than what is asked."""
    if row["prompt"] != asked.text:
        raise Unfinished(f"{row['key']} was made of another prompt")
    for name in AS_ASKED:
        if row[name] != getattr(asked, name):
            raise Unfinished(
                f"{row['key']} was made with the {name} {row[name]}, not {getattr(asked, name)}"
            )


def _check_embeddings(report: Mapping[str, Any], audit: Audit, learner: Learner) -> None:
    """Raise Unfinished for a picture that was made with another file of an embedding."""
    named = digests_of(audit.job.texts, folders_of(learner.clip))
    now = {prompt.key: of_prompt(named, prompt) for prompt in audit.job.prompts}
    for row in report["images"]:
        there = now[row["key"]]
        if there is not None and there != row.get(KEY):
            raise Unfinished(f"{row['key']} was made with another file of its embedding")


def _merge_said(experiment: Experiment, arm: Arm, seed: int) -> dict[str, Any]:
    try:
        return experiment.merge_said(arm, seed)
    except (OSError, ValueError) as error:
        raise Unfinished(f"what Modular Merge said of it can't be read ({error})") from error


def _digests(learner: Learner, arm: Arm, seed: int) -> list[str]:
    """Of the LoRAs of an arm. Raises Unfinished where one is not trained; trains none."""
    experiment = learner.experiment
    wanted = [arm.mode] if arm.mode else []
    wanted += [SAFETY] if arm.is_safe and not experiment.given else []
    for what in wanted:
        training = experiment.training(what, seed)
        if not is_whole(training):
            raise Unfinished(f"{training.done()} of {amount(training.total, 'step')} trained")
    safety = learner.safety(seed) if arm.is_safe else []
    tasks = [learner.task(arm.mode, seed)] if arm.mode else []
    return sorted(each.sha256 for each in (*safety, *tasks))


def _check_model(report: Mapping[str, Any], digests: Sequence[str], learner: Learner) -> None:
    """Raise Unfinished unless a report says that just these LoRAs were on this base."""
    models = report.get("about", {}).get("models", [])
    if len(models) != 1:
        raise Unfinished("its report does not say which model made the pictures")
    on_it = sorted(each["sha256"] for each in models[0]["loras"])
    if on_it != list(digests):
        raise Unfinished(
            f"its pictures were made with other LoRAs ({amount(len(on_it), 'LoRA')};"
            f" {len(digests)} belong there)"
        )
    if models[0]["base_sha256"] != learner.base_sha256:
        raise Unfinished("its pictures were made with another base")
