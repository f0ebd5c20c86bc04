"""The story told: four models on the same prompts and noise, audited, and the page of it."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import comfy.sd
import comfy.utils
from comfy.model_patcher import ModelPatcher

from ..audit.compare import compare
from ..audit.compared_chart import chart
from ..audit.presets import PRESETS
from ..audit.reading import parsed
from ..audit.rules import Rules
from ..evaluation.job import KEEP, AuditJob
from ..evaluation.prompt_set import Defaults, PromptSet, read_prompts
from ..evaluation.run import run
from ..host.comfy_types import Clip
from ..host.comfyui import load_checkpoint
from ..host.sampling_settings import Sampling
from ..merge.entries import Task
from ..merge.merge import Merged, merge
from ..merge.words import in_words
from ..modules.files import LoraFile, load_safety, load_task
from ..storage.whole import write_picture, write_text
from .checkpoint import made_in
from .files import FOLDER, SEQUENTIAL, THOROUGH, task_file
from .names import INK, SIDE, TASK
from .page import page
from .story import (
    ARMS,
    GUIDANCE,
    LESS,
    PRESET,
    SCHEDULER,
    SETS,
    STEPS,
    Set,
    check,
    folder_of,
    rows_of,
)

Progress = Callable[[int, int], None]
SAMPLING = Sampling(STEPS, scheduler=SCHEDULER)


def tell(folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Make every picture of the story, audit them, and write `index.html`; its path.

    What a stopped run made is kept, and not made again. `progress` is called with the count of
    pictures done and in all. Raises StoryError if a picture can't be made, or if the models draw
    another story than the page tells; then the page is there all the same.
    """
    with tempfile.TemporaryDirectory() as made:
        model, clip, vae = load_checkpoint(made_in(Path(made)))
        arms, reports = models(model, clip, load_safety(FOLDER / THOROUGH, THOROUGH))
        total, done = len(ARMS) * sum(len(which.prompts) for which in SETS), 0
        for which in SETS:
            prompts, found = _prompts(folder, which), {}
            for arm, each in arms.items():
                before = done

                def on_picture(now: int, _: object, before: int = before) -> None:
                    progress(before + now, total)

                place = folder_of(folder, which, arm)
                how = Rules(PRESETS[PRESET]), SAMPLING, place, KEEP[-1], on_picture
                run(each, clip, vae, AuditJob(which.title, prompts, *how))
                title, _ = ARMS[arm]  # as the page calls it
                found[title] = parsed(title, (place / "report.json").read_text(encoding="utf-8"))
                done += len(prompts)
            write_picture(folder / f"{which.name}.png", chart(compare(found)))
    told = {which.name: rows_of(folder, which) for which in SETS}
    write_text(folder / "index.html", page(told, folder / f"{SETS[0].name}.png", *reports))
    check(told[SETS[0].name])
    return folder / "index.html"


def models(
    model: ModelPatcher, clip: Clip, safety: LoraFile
) -> tuple[dict[str, ModelPatcher], tuple[str, str]]:
    """The MODEL of each arm, and Modular Merge's words on what was trained apart, and on top."""
    apart = Task(_task(INK))
    on_top = Task(_task(INK, SEQUENTIAL))

    def merged(*tasks: Task) -> Merged:
        return merge(model, [safety], tasks, clip)

    modular = merged(apart)
    arms = {
        "base": model,
        "safe": merged().model,
        "sequential": _stock(_stock(model, THOROUGH), task_file(INK, SEQUENTIAL)),
        "modular": modular.model,
    }
    both = merged(apart, Task(_task(TASK), LESS, LESS))
    return arms, (in_words(both.report), in_words(merged(on_top).report))


def _task(style: str, ending: str = "") -> LoraFile:
    name = task_file(style, ending)
    return load_task(FOLDER / name, name)


def _stock(model: ModelPatcher, name: str) -> ModelPatcher:
    """A MODEL with a LoRA as ComfyUI's own loader puts it on."""
    weights = comfy.utils.load_torch_file(str(FOLDER / name), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]


def _prompts(folder: Path, which: Set) -> PromptSet:
    file = folder / f"{which.name}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    which.write(file)
    return read_prompts(file, Defaults(guidance=GUIDANCE, width=SIDE, height=SIDE))
