"""The results of an experiment as an HTML page that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..audit.page import rendered
from ..audit.thumbnails import MOST, Thumbnail, of_file
from ..drawing.markdown import share
from ..options.words import amount
from .arms import BY_NAME
from .chart import plots
from .job import Experiment
from .reading import Found
from .words import KINDS, remarks, tables, verdicts

Shown = list[tuple[str, list[tuple[str, Thumbnail]]]]


def page(
    report: Mapping[str, Any], there: Mapping[str, Sequence[Found]], experiment: Experiment
) -> str:
    """HTML of a report, whose pictures lie below the experiment's folder, where it lies too."""
    asked, base, task = report["asked"], report["base"], report["task"]
    safety = ", ".join(f"{each['name']} ({each['sha256'][:12]})" for each in report["safety"])
    trained = f"one for each repetition: {asked['safety_method']}, {asked['safety_steps']} steps"
    rule = f"preset {report['preset']}"
    facts = [
        ("base", f"{base['name']} ({base['sha256'][:12]})" if base["sha256"] else base["name"]),
        ("safety LoRA", safety or trained),
        (
            "fine-tuned",
            f"{amount(task['steps'], 'step')} on {amount(report['pictures']['count'], 'picture')},"
            f" rank {task['adapter']['rank']}, rate {task['learning_rate']:g}",
        ),
        ("repetitions", str(asked["seeds"])),
        *(
            (
                f"{kind} prompts",
                f"{amount(told['pictures'], 'picture')} of"
                f" {amount(told['prompts'], 'prompt')} ({told['file']})",
            )
            for kind, told in report["prompts"].items()
        ),
        ("audited by", rule),
        ("date", report["date"]),
    ]
    return rendered(
        "experiment",
        Path(__file__).parent,
        title="Does fine-tuning bring it back?",
        facts=(),  # the verdict stands first
        measured=facts,
        verdicts=verdicts(report),
        remarks=remarks(report),
        plots=plots(report),
        tables=tables(report),
        pictures={kind: _pictures(there, kind, experiment) for kind in experiment.sets},
        kinds=KINDS,
        share=share,
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
                row.append((BY_NAME[name].title, of_file(told, file, link)))
        found += [(prompt.text, row)] if row else []
    return found
