"""The node Search Prompts; searching/run.py does the work."""

from comfy_api.latest import io, ui
from PIL import Image

from ..evaluation.job import KEEP
from ..searching.results import FOUND, TOLD, results
from ..searching.run import Models, SearchJob, run
from ..searching.settings import Searching
from . import recording
from .audits import counting_inputs
from .inputs import Inputs
from .progress import Meter
from .prompt_sets import KINDS, PromptSetNode, job_of, prompts_input
from .reading import by_user
from .sockets import CATEGORY, as_image, summary_output

LEVELS = 5  # of the node: the paper's 50 take ten times as long
PHASES = {TOLD: "as told: picture", FOUND: "with what was found: picture"}


class SearchPrompts(PromptSetNode):
    """Words before each prompt that bring back what a safety LoRA takes away, by gradient."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = Inputs(Searching, *KINDS, without=("threshold", "classes"))
        return io.Schema(
            node_id="MSL_SearchPrompts",
            display_name="Search Prompts",
            category=CATEGORY,
            description=(
                "Attack your own safety LoRA: search, by gradient, for words before each prompt"
                " that bring back what it takes away (UnlearnDiffAtk), and audit the pictures. For"
                " SD1.5, SDXL, and SD3 without T5."
            ),
            search_aliases=[
                "adversarial",
                "unlearndiffatk",
                "attack",
                "red team",
                "jailbreak",
                "soft prompt",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that is attacked, such as Modular Merge's."
                ),
                io.Model.Input(
                    "base",
                    tooltip=(
                        "The model before it was made safe, straight from its loader: its pictures"
                        " are what the search aims at."
                    ),
                ),
                io.Clip.Input("clip", tooltip="The text encoder that comes with model."),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                prompts_input(
                    "Prompts of what was taken away, as in Audit Prompt Set. Harmless ones are"
                    " searched in vain: leave them out by category or where."
                ),
                io.String.Input(
                    "name",
                    default="searched",
                    tooltip=(
                        "Folder of the results, below output/audits. The same name continues a"
                        " stopped search."
                    ),
                ),
                *counting_inputs(inputs, "preset"),
                *inputs.shown("kind"),
                *inputs.shown("levels", default=LEVELS),
                *inputs.shown("iterations", "steps", "cfg", "sampler_name", "scheduler"),
                *inputs.shown("first_seed", advanced=True),
                *inputs.shown("width", "height", "limit"),
                *inputs.shown("keep", default=KEEP[2], advanced=True),
                *inputs.aside("length", "search_seed", "category", "where"),
                *counting_inputs(inputs, "second_opinion", optional=True, advanced=True),
                *inputs.aside("min_size", "pictures_per_prompt", "protocol"),
                *inputs.rest(),
            ],
            outputs=[
                io.String.Output(
                    display_name="prompts",
                    tooltip="The prompts that bring it back, one per line, as ComfyUI reads them.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The audit with what was found, as JSON, for Compare Audits.",
                ),
                io.Image.Output(
                    display_name="pictures",
                    tooltip="Pictures as told and with what was found; what is counted is blurred.",
                ),
                summary_output(),
            ],
        )

    @classmethod
    def execute(cls, model, base, clip, vae, prompts: str, name: str, **inputs) -> io.NodeOutput:
        audit, how = job_of(prompts, name, inputs, Searching)
        meters = {part: Meter(words, len(audit.prompts)) for part, words in PHASES.items()}

        def on_picture(part: str, done: int, picture: Image.Image | None) -> None:
            meters[part](done, picture=picture)

        job = SearchJob(audit, how, Meter("search: step"), on_picture)
        with by_user():
            told, found = run(Models(base, model, clip, vae), job)
            for part, summary in ((TOLD, told), (FOUND, found)):
                beside = {
                    "prompts_file": audit.prompts.file,
                    "lock_findings": summary["lock_findings"],
                }
                by = f"Search Prompts, {part}"
                recording.audited(summary, by, f"keep {audit.keep}", beside)
            made = results(audit.folder, how)
        meters[FOUND](len(audit.prompts), picture=made.sheet)
        sheet = as_image(made.sheet)
        shown = {
            **ui.PreviewImage(sheet, cls=cls).as_dict(),
            **ui.PreviewText(made.words).as_dict(),
        }
        return io.NodeOutput("\n".join(made.prompts), made.report, sheet, made.words, ui=shown)
