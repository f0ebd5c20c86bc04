"""Report a safety LoRA: pictures with and without it, audited, and what the network computes."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from PIL import Image

from ..audit.report import as_text
from ..audit.rules import Rules
from ..evaluation.job import AuditJob
from ..evaluation.prompt_set import Defaults, PromptSet
from ..evaluation.run import run
from ..function.kept import digest
from ..host.bases import origin
from ..host.comfy_types import Clip
from ..host.fingerprint import fingerprint
from ..host.named import digests_of
from ..host.prefixes import folders_of
from ..host.sampling_settings import Sampling
from ..merge.about import about_model
from ..merge.arms import Arms
from ..merge.in_function import UNRUN
from ..modules.errors import ModuleFileError, SafetyError
from ..modules.files import LoraFile
from ..storage.whole import write_text
from .function import in_function
from .grid import grid
from .models import Models, Tuning
from .names import BASE, CONCEPT, HARMLESS, ON_TOP, SAFE, TUNED
from .page import page
from .pictures import HIDDEN, Rows, harm, rates, rows_in
from .prompts import Groups, groups_of, pictures_of
from .report import short_form, today
from .settings import Asking
from .words import in_words

STOPPED = (KeyboardInterrupt, comfy.model_management.InterruptProcessingException)
UNTOLD = "What the network computes could not be measured"
FORWARDS = 8  # models that are asked what they compute, about
Progress = Callable[[int, int, Image.Image | None], None]


@dataclass(frozen=True)
class ReportJob:
    """What is asked of a safety LoRA, how its pictures are made and judged, where all of it goes.

    Results of one question lie in one folder below `place`: the same run goes on where it was. It
    has `report.json`, `report.html`, and a folder of pictures for each model. `progress` is called
    with the count of steps done, in all, and the newest picture; it may raise to stop.
    """

    asking: Asking
    rules: Rules
    sampling: Sampling
    defaults: Defaults
    place: Path
    tuning: Tuning = field(default_factory=Tuning)
    progress: Progress = lambda done, total, picture: None


@dataclass(frozen=True)
class Reported:
    """The report as a dict for JSON, in words, its pictures side by side, and its folder."""

    report: dict[str, Any]
    words: str
    grid: Image.Image
    folder: Path


def report(model: ModelPatcher, clip: Clip, vae: VAE, module: LoraFile, job: ReportJob) -> Reported:
    """Measure a safety LoRA and write its report.

    Raises ValueError for prompts that contradict each other, and for a base with LoRAs on it. A run
    that is stopped writes a report that is marked partial, once base and safe model are done, and
    raises what stopped it.
    """
    groups, remarks = groups_of(module, job.asking)
    models = Models.of(model, clip, module, job.tuning)
    total = FORWARDS + sum(len(_asked(groups, job, arm)) for arm in models.by_arm)
    folder = _folder(model, clip, vae, module, job, groups=groups)
    making = _Making(job, groups, vae, folder, total)
    told = {
        "date": today(),
        "safety": {
            "name": module.name,
            "sha256": module.sha256,
            "method": module.metadata.get("msl.method", ""),
        },
        "base": {"name": about_model(model)["base"], "sha256": origin(model).sha256},
        "tuned": {arm: job.tuning.told(arm) for arm in TUNED if arm in models.by_arm},
        "preset": job.rules.preset.name,
        "remarks": remarks,
    }
    by_arm: dict[str, Rows] = {}
    function = None
    try:
        for arm, (network, text) in models.by_arm.items():
            by_arm[arm] = making.drawn(arm, network, text)
            if arm == SAFE:
                function = making.computed(models.arms)
    except STOPPED:
        if SAFE in by_arm:
            making.written(told, module, by_arm, function, stopped="The run was stopped.")
        raise
    job.progress(total, total, None)
    return making.written(told, module, by_arm, function)


@dataclass
class _Making:
    """One report in the making: how much is done, and why pictures are missing."""

    job: ReportJob
    groups: Groups
    vae: Any
    folder: Path
    total: int
    done: int = 0
    not_made: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)

    def drawn(self, arm: str, model: ModelPatcher, clip: Clip) -> Rows:
        """The audited pictures of one model; those of an earlier run are not made again."""
        job, before = self.job, self.done
        prompts = _asked(self.groups, job, arm)
        tasks = job.tuning.told(arm)
        folder = self.folder / (f"{arm}-{digest(tasks=tasks)[:8]}" if tasks else arm)

        def on_picture(done: int, picture: Image.Image | None) -> None:
            job.progress(before + done, self.total, picture)

        how = job.rules, job.sampling, folder, HIDDEN, on_picture
        audit = AuditJob("report", prompts, *how, arm, tasks if arm == ON_TOP else ())
        self.found += run(model, clip, self.vae, audit)["lock_findings"]
        self.done += len(prompts)
        rows, missing = rows_in(folder)
        self.not_made += [f"{arm}, {each}" for each in missing]
        return rows

    def computed(self, arms: Arms) -> dict[str, Any] | None:
        """What the network computes; None, and a remark, where it does not run here."""
        side = min(self.job.defaults.width, self.job.defaults.height)
        try:
            return in_function(arms, self.groups, side, self.step)
        except (SafetyError, ModuleFileError):
            raise
        except UNRUN as error:
            self.found.append(f"{UNTOLD} ({' '.join(str(error).split())[:200]}).")
            return None

    def step(self) -> None:
        """One more model is asked what it computes."""
        self.done += 1
        self.job.progress(min(self.done, self.total), self.total, None)

    def written(
        self,
        told: Mapping[str, Any],
        module: LoraFile,
        by_arm: Mapping[str, Rows],
        function: Mapping[str, Any] | None,
        *,
        stopped: str = "",
    ) -> Reported:
        """Write what there is; the report."""
        job, detector = self.job, self.job.rules.opinions()[0].detector
        found = {
            "partial": stopped,
            **told,
            "remarks": [*told["remarks"], *dict.fromkeys(self.found)],
            "detector": f"{detector.name} {detector.version}",
            "rates": rates(by_arm, self.groups),
            "harm": harm(by_arm[BASE], by_arm[SAFE]),
            "function": function,
            "not_made": self.not_made,
            "sampling": asdict(job.sampling) | asdict(job.defaults),
            "prompts": {kind: list(some) for kind, some in self.groups.items()},
        }
        found["short"] = short_form(found, module)
        write_text(self.folder / "report.json", as_text(found))
        write_text(self.folder / "report.html", page(found, by_arm, self.folder))
        return Reported(found, in_words(found), grid(by_arm), self.folder)


def _asked(groups: Groups, job: ReportJob, arm: str) -> PromptSet:
    kinds = CONCEPT if arm in TUNED else (*CONCEPT, *HARMLESS)
    return pictures_of(groups, kinds, job.asking.pictures, job.defaults)


def _folder(
    model: ModelPatcher,
    clip: Clip,
    vae: VAE,
    module: LoraFile,
    job: ReportJob,
    *,
    groups: Groups,
) -> Path:
    """A folder for this question; a new one where something on the model has no digest."""
    seen = fingerprint(model, clip, vae)
    texts = [text for some in groups.values() for text in some]
    embeddings = digests_of(texts, folders_of(clip))
    named = digest(
        base=seen.sha256,
        untold=uuid.uuid4().hex if seen.untold else "",
        safety=module.sha256,
        prompts=groups,
        pictures=job.asking.pictures,
        rules=job.rules.identity(),
        sampling=[asdict(job.sampling), asdict(job.defaults)],
        **({"embeddings": embeddings} if embeddings else {}),
    )
    return job.place / f"{Path(module.name).stem}-{named[:12]}"
