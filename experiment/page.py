"""The results of an experiment as an HTML page that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..audit.page import rendered
from ..audit.thumbnails import MOST, Thumbnail, of_file
from ..options.language import phrase, say, spoken
from ..options.words import amount
from .arms import BY_NAME
from .chart import plots
from .words import CONCEPT, HARMLESS, remarks, tables, verdicts

if TYPE_CHECKING:  # the page is made without ComfyUI
    from .job import Experiment
    from .reading import Found

PROMPTS = {CONCEPT: phrase("concept prompts"), HARMLESS: phrase("harmless prompts")}
Shown = list[tuple[str, list[tuple[str, Thumbnail]]]]


@spoken()
def page(
    report: Mapping[str, Any], there: Mapping[str, Sequence[Found]], experiment: Experiment
) -> str:
    """HTML of a report, whose pictures lie below the experiment's folder, where it lies too."""
    asked, base, task = report["asked"], report["base"], report["task"]
    safety = ", ".join(f"{each['name']} ({each['sha256'][:12]})" for each in report["safety"])
    trained = say(
        "one for each repetition: {method}, {count} steps",
        method=asked["safety_method"],
        count=asked["safety_steps"],
    )
    tuned = say(
        "{steps} on {pictures}, rank {rank}, rate {learning_rate}",
        steps=amount(task["steps"], "step"),
        pictures=amount(report["pictures"]["count"], "picture"),
        rank=task["adapter"]["rank"],
        learning_rate=f"{task['learning_rate']:g}",
    )
    facts = [
        (
            say("base"),
            f"{base['name']} ({base['sha256'][:12]})" if base["sha256"] else base["name"],
        ),
        (say("safety LoRA"), safety or trained),
        (say("fine-tuned"), tuned),
        (say("repetitions"), str(asked["seeds"])),
        *(
            (
                say(PROMPTS[kind]),
                say(
                    "{part} of {whole} ({file})",
                    part=amount(told["pictures"], "picture"),
                    whole=amount(told["prompts"], "prompt"),
                    file=told["file"],
                ),
            )
            for kind, told in report["prompts"].items()
        ),
        (say("audited by"), say("preset {preset}", preset=report["preset"])),
        (say("date"), report["date"]),
    ]
    return rendered(
        "experiment",
        Path(__file__).parent,
        title=say("Does fine-tuning bring it back?"),
        facts=(),  # the verdict stands first
        measured=facts,
        verdicts=verdicts(report),
        remarks=remarks(report),
        plots=plots(report),
        tables=tables(report),
        pictures={PROMPTS[kind]: _pictures(there, kind, experiment) for kind in experiment.sets},
        settings=json.dumps(
            {name: report[name] for name in ("asked", "task", "sampling", "prompts")}, indent=1
        ),
    )


def _pictures(there: Mapping[str, Sequence[Found]], kind: str, experiment: Experiment) -> Shown:
    """Each prompt with its picture by every model's first repetition that kept it."""
    arms = {
        name: next((each for each in some if not each.missing), None)
        for name, some in there.items()
    }
    whole = {name: each for name, each in arms.items() if each is not None}
    keys = list(experiment.sets[kind])[: MOST // max(1, len(whole))]
    found: Shown = []
    for prompt in keys:
        row = []
        for name, each in whole.items():
            told = each.rows[kind].get(prompt.key)
            if told and told.get("picture"):
                place = experiment.arm_folder(BY_NAME[name], each.seed or None) / kind
                file = place / told["picture"]
                link = quote(file.relative_to(experiment.folder).as_posix())
                row.append((say(BY_NAME[name].title), of_file(told, file, link)))
        found += [(prompt.text, row)] if row else []
    return found
