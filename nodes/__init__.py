"""The ComfyUI half: schemas, and a few lines each."""

from comfy_api.latest import ComfyExtension, io

from . import policy, recording, running
from .audits import tell_mistakes
from .compare_audits import CompareAudits
from .example_model import ExampleModel, offer_loras
from .extract import ExtractSafetyLora
from .load import LoadSafetyLora, LoadTaskLora
from .measure_quality import MeasureQuality
from .merge import ModularMerge
from .nudity_audit import NudityAudit
from .probe import ProbeSafety
from .prompt_audit import AuditPromptSet
from .report_safety import ReportSafetyLora
from .save_provenance import SaveWithProvenance
from .seal import SealSafetyLora
from .search_prompts import SearchPrompts
from .train_safety import TrainSafetyLora
from .train_task import TrainTaskLora
from .users import watch_users
from .video_audit import AuditVideo

NODES = (
    AuditPromptSet,
    AuditVideo,
    CompareAudits,
    ExampleModel,
    ExtractSafetyLora,
    LoadSafetyLora,
    LoadTaskLora,
    MeasureQuality,
    ModularMerge,
    NudityAudit,
    ProbeSafety,
    ReportSafetyLora,
    SaveWithProvenance,
    SealSafetyLora,
    SearchPrompts,
    TrainSafetyLora,
    TrainTaskLora,
)


class ModularSafetyExtension(ComfyExtension):
    """All nodes of the pack.

    On load it holds the operator's policy, logs mistakes in the settings, ties what locks find to
    the prompt that samples, learns in which language pages are read, begins the evidence log, and
    lists the example's LoRAs.
    """

    async def on_load(self) -> None:
        policy.install()
        tell_mistakes()
        running.install()
        watch_users()
        recording.install()
        offer_loras()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
