"""`python -m modular_safety_lora.lab.world.reports`: the reports of the safety LoRAs that ship.

Each, or each that is named, is measured with all of its prompts, and the short form sealed into it.
What was trained on top of one names its new seal.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from ...audit.presets import PRESETS
from ...audit.rules import Rules
from ...emoji import story
from ...emoji.checkpoint import made_in
from ...emoji.files import FOLDER, SEQUENTIAL, task_file
from ...evaluation.prompt_set import Defaults
from ...host.comfyui import enter_comfyui, load_checkpoint
from ...host.sampling_settings import Sampling
from ...modules.files import LoraFile, load_safety, load_task, save_module
from ...modules.sealing import seal_report
from ...modules.short_report import report_line
from ...reporting.settings import Asking
from . import recipe, train_modules
from .sets import SIDE

NAMES = "msl.safety_sha256"  # of a task LoRA: the safety LoRA that it was trained on top of
ASKED = Asking(pictures=1, most=0, held_out=recipe.UNSEEN, near=recipe.KIN, far=recipe.OTHERS)


def main() -> None:
    enter_comfyui()
    with tempfile.TemporaryDirectory() as made:
        parts = load_checkpoint(made_in(Path(made)))
        for name in sys.argv[1:] or train_modules.SAFETIES:
            module = load_safety(FOLDER / name, name)
            text = _report(parts, module, Path(made))
            new = Path(made, name)
            digest = seal_report(FOLDER / name, new, text)
            shutil.move(new, FOLDER / name)
            _rename(module.sha256, digest)
            line = report_line(load_safety(FOLDER / name, name).metadata)
            print(f"{name}: {line}", flush=True)


def _report(parts: tuple, module: LoraFile, place: Path) -> str:
    from ...merge.entries import Task
    from ...reporting.models import Tuning
    from ...reporting.run import ReportJob, report

    def task(ending: str = "") -> Task:
        name = task_file(style, ending)
        return Task(load_task(FOLDER / name, name))

    (style,) = (each for each, safety in train_modules.STYLES.items() if safety == module.name)
    tuning = Tuning([task()], [task(SEQUENTIAL)])
    how = Sampling(story.STEPS, story.GUIDANCE, scheduler=story.SCHEDULER)
    rules, size = Rules(PRESETS[story.PRESET]), Defaults(0, story.GUIDANCE, SIDE, SIDE)
    return json.dumps(
        report(*parts, module, ReportJob(ASKED, rules, how, size, place, tuning)).report
    )


def _rename(former: str, digest: str) -> None:
    """Let the task LoRAs that name a former seal name the new one."""
    for path in FOLDER.glob("*.safetensors"):
        if path.name in train_modules.SAFETIES:
            continue
        module = load_task(path, path.name)
        if module.metadata.get(NAMES) == former:
            tensors = {key: value.clone() for key, value in module.tensors.items()}
            save_module(path, tensors, {**module.metadata, NAMES: digest}, "task", overwrite=True)


if __name__ == "__main__":
    main()
