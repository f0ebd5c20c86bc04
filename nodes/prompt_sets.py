"""What the nodes share that run a prompt set: the file, checks, and the audit that is asked for."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..audit.rules import NO_OPINION, Counting, Rules
from ..evaluation.job import AuditJob, Kept
from ..evaluation.prompt_set import Defaults, Selection, read_prompts
from ..evaluation.protocols import NONE, Following
from ..host.sampling_settings import Sampling
from ..modules.paths import leads_out
from ..options.choices import chosen
from .audits import audit_demands, check_counting, known_presets, presets
from .embeddings import embeddings_state
from .inputs import mistake, taken
from .made_by import loras_upstream
from .settings import operator

KINDS = (Counting, Sampling, Defaults, Selection, Kept, Following)
READ = (".csv", ".txt", ".json")
SHIPPED = "example: "  # before the names of the pack's own sets


def prompt_files() -> dict[str, Path]:
    """Prompt sets by their name in the combo: the pack's examples, those in the input folder."""
    folder = Path(folder_paths.get_input_directory())
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in READ)
    examples = sorted(Path(__file__).parents[1].joinpath("evaluation", "examples").glob("*.csv"))
    own = {path.relative_to(folder).as_posix(): path for path in found}
    return {f"{SHIPPED}{path.stem}": path for path in examples} | own


def prompts_input(words: str) -> io.Input:
    """The combo of prompt files."""
    return io.Combo.Input("prompts", options=list(prompt_files()), tooltip=words)


class PromptSetNode(io.ComfyNode):
    """A node that runs a prompt set: when it must run again, and what is told before it does."""

    @classmethod
    def fingerprint_inputs(cls, prompts: str = "", **_) -> str:
        """Another content of the file or of the embeddings that it names, and other settings."""
        file = prompt_files().get(prompts)
        text = file.read_text(encoding="utf-8", errors="replace") if file else ""
        changed = file.stat().st_mtime_ns if file else None
        return f"{changed} {embeddings_state(text)} {audit_demands()}"

    @classmethod
    def validate_inputs(
        cls,
        prompts: str | None = None,
        preset: str | None = None,
        second_opinion: str | None = None,
        protocol: str | None = None,
    ) -> bool | str:
        """What is linked is not known yet."""
        if prompts is not None and prompts not in prompt_files():
            return f"{prompts!r} is not in ComfyUI's input folder. Put it there and press R."
        if preset is None:
            return known_presets(second_opinion)

        def check() -> None:
            following = Following(protocol or NONE)
            counted = following.filled({"preset": preset})[0]["preset"]
            following.check_preset(counted, presets())
            check_counting(counted, "", second_opinion or NO_OPINION)

        return mistake(check)


def job_of(prompts: str, name: str, inputs: Mapping[str, object], *more: type) -> tuple:
    """The audit that a node's inputs ask for, and the settings of `more` classes among them."""
    settings, files = operator(), prompt_files()
    following = Following(str(inputs.get("protocol", NONE)))
    values, changes = following.filled(inputs)
    counting, sampling, defaults, selection, kept, _, *others = taken(values, *KINDS, *more)
    own, there = (settings.detectors, folder_paths.get_user_directory()), presets()
    following.check_preset(counting.preset, there)
    rules = Rules(*counting.among(there), *own, settings.audit_provider)
    file = files[chosen(prompts, files, "prompts")]
    rows = read_prompts(file, defaults, selection, following.shape)
    called = name.strip()
    if not called or leads_out(called):
        raise ValueError(f"{name!r} can't be a folder name below output/audits; choose another.")
    folder = Path(folder_paths.get_output_directory(), "audits", called)
    job = AuditJob(file.stem, rows, rules, sampling, folder, kept.keep, name=called)
    told = following.told(rows, values, changes)
    return replace(job, loras=loras_upstream(), protocol=told), *others
