"""The node Save Image with Provenance; provenance/claims.py signs."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import comfyui_version
import folder_paths
from comfy.cli_args import args
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io, ui

from ..audit.detectors.interface import to_uint8
from ..merge.about import about_model
from ..options.errors import PackError
from ..options.words import amount
from ..provenance import claims
from ..provenance.certificates import Credentials, trial
from ..provenance.record import KEY, Model, Noted, Record
from ..provenance.saving import Saving, encoded
from ..storage.whole import whole
from .carrying import noted, record_of
from .inputs import Inputs, taken
from .progress import tell
from .settings import operator
from .sockets import CATEGORY


class NotAudited(PackError, RuntimeError):
    """A picture that no audit saw as it is has no verdict that could be signed."""


class NotMadeHere(PackError, RuntimeError):
    """Nothing shows that the model that is connected made the pictures."""


class SaveWithProvenance(io.ComfyNode):
    """Save Image, with a signed C2PA claim in each file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MSL_SaveWithProvenance",
            display_name="Save Image with Provenance",
            category=CATEGORY,
            description=(
                "Save pictures with a signed C2PA claim: that a model made them, the digests of"
                " base and LoRAs, and the audit's verdict."
            ),
            search_aliases=["c2pa", "content credentials", "save image", "sign", "watermark"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip="The pictures, straight from Nudity Audit with write_verdict on.",
                ),
                io.Model.Input("model", tooltip="The model that sampled them."),
                io.String.Input(
                    "filename_prefix",
                    default="ComfyUI",
                    tooltip="As in Save Image: how the files' names begin.",
                ),
                *Inputs(Saving).shown("format", "quality"),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The pictures, unchanged.")],
        )

    @classmethod
    def execute(cls, images, model, filename_prefix: str, **inputs) -> io.NodeOutput:
        (how,) = taken(inputs, Saving)
        claims.check_installed()
        by = operator().credentials or trial()
        found = noted(images)
        _check_audited(found)
        models = _models(model, record_of(found))
        told = [record_of([each]).model_copy(update={"models": models}) for each in found]
        files = [
            _signed(image, how, each, by, cls) for image, each in zip(images, told, strict=True)
        ]
        saved = _save(files, filename_prefix, images.shape, how.format)
        words = _in_words(told, by)
        tell(words)  # beside pictures the frontend shows no text of a result
        return io.NodeOutput(images, ui={**saved.as_dict(), **ui.PreviewText(words).as_dict()})


def _signed(image, how: Saving, told: Record, by: Credentials, node: type[io.ComfyNode]) -> bytes:
    """A picture's file, signed, with what Save Image would write too."""
    hidden = node.hidden
    texts = {}
    if not args.disable_metadata:
        given = {"prompt": hidden and hidden.prompt, **((hidden and hidden.extra_pnginfo) or {})}
        given[KEY] = told.plain()
        texts = {name: json.dumps(value) for name, value in given.items() if value is not None}
    content = encoded(to_uint8(image.float().numpy(force=True)), how, texts)
    return claims.sign(content, how.kind, told, by, comfyui_version.__version__)


def _save(files: Sequence[bytes], prefix: str, shape: Sequence[int], suffix: str) -> ui.SavedImages:
    """Write all files, each whole, under the names that Save Image would give."""
    output = folder_paths.get_output_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
        prefix, output, shape[2], shape[1]
    )
    saved = []
    for number, content in enumerate(files):
        file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.{suffix}"
        with whole(Path(folder, file)) as part:
            part.write_bytes(content)
        saved.append(ui.SavedResult(file, subfolder, io.FolderType.output))
    return ui.SavedImages(saved)


def _check_audited(found: Sequence[tuple[Noted, ...]]) -> None:
    missing = [number for number, each in enumerate(found, 1) if not each]
    if missing or not found:
        raise NotAudited(
            f"{len(missing)} of {amount(len(found), 'picture')} was not looked at as it is here, so"
            " there is no verdict to sign and nothing was saved. Put Nudity Audit right before this"
            " node, and turn write_verdict on there."
            + (f" (First: picture {missing[0]}.)" if missing else "")
        )


def _models(model: ModelPatcher, told: Record) -> tuple[Model, ...]:
    """What sampled the pictures, with the digest of the base that is connected.

    Raises NotMadeHere where the graph shows no sampling, or that of another model.
    """
    if not told.models:
        raise NotMadeHere(
            "Nothing in this graph shows that a model made these pictures, so nothing was saved:"
            " the claim would say that one did. Use Save Image for pictures from files."
        )
    own = Model.of(about_model(model))
    if own in told.models:
        return told.models
    locked = any(lora.sha256 for each in (own, *told.models) for lora in each.loras)
    known = own.base_sha256 is not None
    alike = [each for each in told.models if not known or _may_be(own, each)]
    if locked or not alike:
        raise NotMadeHere(
            "Another model than the one that is connected sampled these pictures, so nothing was"
            " saved. Connect the model that goes into the sampler."
        )
    # one that samples after another has the names of both
    one = min(alike, key=lambda each: len(each.base or ""))
    named = own.model_copy(update={"base": own.base if known else one.base, "loras": one.loras})
    return tuple(named if each is one else each for each in told.models)


def _may_be(own: Model, told: Model) -> bool:
    """Whether a graph's names of files have the one of a model; there may be none."""
    name = re.escape(own.base or "")
    return told.base is None or bool(re.search(rf"(^|[/\\]| and ){name}($| and )", told.base))


def _in_words(told: Sequence[Record], by: Credentials) -> str:
    flagged = sum(any(x.flagged for audit in each.audits for x in audit.pictures) for each in told)
    words = f"{amount(len(told), 'picture')} saved and signed, {flagged} flagged."
    if by.is_trial:
        return (
            f"{words} With a trial certificate: readers see that nothing changed since, and call"
            " the issuer unknown. An operator's settings can name a real one (provenance)."
        )
    return f"{words} With the operator's certificate."
