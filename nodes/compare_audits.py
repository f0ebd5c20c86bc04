"""The node Compare Audits; audit/pairing.py and audit/compare.py do the work."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ..audit.compare import compare, comparison_table
from ..audit.compared_chart import chart
from ..audit.compared_page import compared_page
from ..audit.cost import costs
from ..audit.detectors.interface import to_uint8
from ..audit.pairing import MOST, Naming, Paired, paired
from ..audit.reading import CompareError, parsed
from ..audit.report import as_text
from ..audit.sheet import contact_sheet
from ..audit.thumbnails import Thumbnail, of_pixels
from ..modules.paths import leads_out
from ..options.words import amount
from ..storage.whole import write_text
from .inputs import Inputs, taken
from .reading import by_user
from .sockets import CATEGORY, as_image


class CompareAudits(io.ComfyNode):
    """Two to six audits of pictures with the same prompts and seeds, tested against each other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        reports = io.String.Input(
            "report", tooltip="The report of an audit. All audits need the same prompts and seeds."
        )
        images = io.Image.Input(
            "image", tooltip="The pictures of the audit at the same place, for the contact sheet."
        )
        rows = Inputs(Naming)
        return io.Schema(
            node_id="MSL_CompareAudits",
            display_name="Compare Audits",
            category=CATEGORY,
            has_intermediate_output=True,
            description=(
                "Audits of the same prompts and seeds side by side (base, safe, fine-tuned,"
                " modular): rates with intervals, an exact test of every pair, counts"
                " by class, and the pictures that changed."
            ),
            search_aliases=["mcnemar", "audit comparison", "safety benchmark", "compare nudity"],
            inputs=[
                io.Autogrow.Input(
                    "reports",
                    template=io.Autogrow.TemplatePrefix(reports, prefix="report", min=2, max=MOST),
                    tooltip="Two to six reports of Nudity Audit or Audit Prompt Set.",
                ),
                *rows.shown("names"),
                io.Autogrow.Input(
                    "images",
                    optional=True,
                    template=io.Autogrow.TemplatePrefix(images, prefix="images", min=0, max=MOST),
                    tooltip=(
                        "The audited pictures in the same order, for a contact sheet of what"
                        " changed."
                    ),
                ),
                *rows.rest(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="chart",
                    tooltip="Rates with intervals, and the pictures of each class.",
                ),
                io.Image.Output(
                    display_name="changed",
                    tooltip="Pictures whose verdict differs, with counted detections blackened.",
                ),
                io.String.Output(
                    display_name="table", tooltip="Rates, pairs and classes as Markdown."
                ),
                io.String.Output(display_name="report", tooltip="The whole comparison as JSON."),
            ],
        )

    @classmethod
    def execute(
        cls, reports: io.Autogrow.Type, images: io.Autogrow.Type = None, **inputs
    ) -> io.NodeOutput:
        (naming,) = taken(inputs, Naming)
        texts = _in_order(reports)
        called = naming.of(len(texts))
        found = {name: parsed(name, text) for name, text in zip(called, texts, strict=True)}
        pairing = paired(found)
        comparison = compare(pairing, costs(_folders(found, dict(zip(called, texts, strict=True)))))
        counts = {name: len(report["images"]) for name, report in found.items()}
        drawn = as_image(chart(comparison))
        batches = _in_order(images or {})
        sheet = as_image(_sheet(comparison, pairing, counts, batches))
        shown_by = dict(zip(called, batches, strict=False))

        def small(name: str, place: int, row: Mapping) -> Thumbnail | None:
            if name not in shown_by:
                return None
            return Thumbnail(
                row, "", of_pixels(row, to_uint8(shown_by[name][place].numpy(force=True)))
            )

        page = _place(called, texts)
        with by_user():
            write_text(page, compared_page(comparison, pairing, small))
        words = f"{comparison_table(comparison)}\n\n- Page: {page}"
        shown = {**ui.PreviewImage(drawn, cls=cls).as_dict(), **ui.PreviewText(words).as_dict()}
        return io.NodeOutput(drawn, sheet, words, as_text(comparison), ui=shown)


def _place(called: list[str], texts: list[str]) -> Path:
    """The file of a comparison's page: of the same reports always the same."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
    plain = re.sub(r"[^\w-]+", "-", "-".join(called))[:80]
    return Path(folder_paths.get_output_directory(), "audits", "compared", f"{plain}-{digest}.html")


def _folders(reports: Mapping[str, dict], texts: Mapping[str, str]) -> dict[str, tuple[Path, str]]:
    """The folder of each report of a prompt set, with the report's text."""
    audits, found = Path(folder_paths.get_output_directory(), "audits"), {}
    for name, report in reports.items():
        run = (report.get("about") or {}).get("run")
        if isinstance(run, str) and run and not leads_out(run):
            found[name] = audits / run, texts[name]
    return found


def _in_order(grown: dict) -> list:
    """The values of an autogrow input, without its empty slots."""
    numbered = sorted(grown, key=lambda name: int(re.sub(r"\D", "", name)))
    return [grown[name] for name in numbered if grown[name] is not None]


def _sheet(comparison: dict, pairing: Paired, counts: dict[str, int], pictures: list):
    reports = pairing.reports
    if not pictures:
        return contact_sheet([], reports, {})
    for name, batch in zip(reports, pictures, strict=False):
        if len(batch) != counts[name]:
            raise CompareError(
                f"{name!r} audited {amount(counts[name], 'picture')}, and {len(batch)} came in."
                " Connect the pictures of this audit."
            )
    if len(pictures) != len(reports):
        raise CompareError(
            f"There are {amount(len(reports), 'audit')} and"
            f" {amount(len(pictures), 'batch', 'batches')} of pictures; connect one batch for each"
            " audit, or none."
        )
    shown = {
        name: batch[pairing.places[name]] for name, batch in zip(reports, pictures, strict=True)
    }
    return contact_sheet(comparison["changed"], reports, shown, pairing.labels)
