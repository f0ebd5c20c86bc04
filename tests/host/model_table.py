"""The table of docs/models.md: what is tried on which family, held how, and whether it works.

test_models.py tries every one of the CASES; the document is made from them.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from comfy.ldm.cosmos import predict2
from comfy_kitchen.backends.eager import quantization
from modular_safety_lora.host.families import FAMILIES, Family, of_class
from modular_safety_lora.lab import zoo
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.lab.zoo.quantised import SCALED, quantised
from modular_safety_lora.options.words import series
from modular_safety_lora.training.objectives import METHODS
from modular_safety_lora.training.objectives.closed_form import ClosedForm

DOCUMENT, README = PACK / "docs" / "models.md", PACK / "README.md"
MARK, END = "<!-- models: python dev.py generate -->\n", "\n<!-- end -->"
WRITES = bool(os.environ.get("MSL_WRITE_TABLE"))
MERGE, LOCK, TASK, ANCHORED, SAFETY, PREVIEWS = "MLTASP"
TRAINING = (TASK, ANCHORED, SAFETY, PREVIEWS)
FORMATS: dict[str, Callable] = {  # as the table calls them: a MODEL of a family, held so
    "fp32": partial(zoo.build),
    "bf16": partial(zoo.build, held=torch.bfloat16),
    "fp16": partial(zoo.build, held=torch.float16),
    "fp8 storage": partial(zoo.build, held=torch.float8_e4m3fn),
    "fp8": partial(quantised, name="float8_e4m3fn"),
    "scaled fp8": partial(quantised, name=SCALED),
    "mxfp8": partial(quantised, name="mxfp8"),
    "int8": partial(quantised, name="int8_tensorwise"),
    "nvfp4": partial(quantised, name="nvfp4"),
}
TRAINED = [key for key, family in zoo.TWINS.items() if family.trains]
RAISES = ("HiDream", "int8")  # in the host, when it trains
OFTEN = ("fp32", "bf16", "fp8 storage", "fp8", "nvfp4")  # in every run of the whole suite, by some
STRUCTURES = ("SD15", "Flux", "Lumina2", "WAN21_T2V")  # UNet, two streams, one stream, video
SHAPES = ("SD15", "SDXL", "Flux", "ZImage")  # on which every method of erasing is tried
HELD = ("bf16", "fp8", "fp8 storage")  # and held so
RULES = [name for name, method in METHODS.items() if isinstance(method, ClosedForm)]
PAST_LINEAR = ("Anima", "HunyuanDiT", "Krea2")  # text enters them past linear layers too
TRAINED_OFTEN = {  # networks that are unlike each other, and each form once
    "SD15": ("fp8 storage",),  # other files train it in fp32, and SD3.5 in halves
    "SDXL": ("fp16",),
    "Stable_Cascade_C": ("fp32",),
    "PixArtSigma": ("fp32",),
    "HunyuanDiT": ("fp32",),
    "Flux": ("fp32", "fp8"),
    "LTXV": ("fp32",),
    "HiDream": ("fp32",),
    "Lumina2": ("fp32",),
    "ZImage": ("bf16",),
    "QwenImage": ("bf16", "nvfp4"),
    "WAN21_T2V": ("fp32",),
}
CASES = {  # what the tests try, by family and format
    (family, name): [MERGE, LOCK] + [*TRAINING] * (family in TRAINED and (family, name) != RAISES)
    for family in zoo.TWINS
    for name in FORMATS
    if zoo.TWINS[family].adjust is None or FORMATS[name].func is not quantised
}


def often(family: str, name: str, letters: str) -> bool:
    """Is it tried in every run of the whole suite? All else is `long`.

    Every family is merged in one of five forms in turn; those of unlike structure in all five.
    """
    if TASK in letters:
        return name in TRAINED_OFTEN.get(family, ())
    forms = [each for each in OFTEN if (family, each) in CASES]
    turn = forms[list(zoo.TWINS).index(family) % len(forms)]
    return name in (OFTEN if family in STRUCTURES else (turn,))


HEAD = ("family", *FORMATS, "names in the file", "preview: steps, guidance")
TOLD = """
Told by a word in the name of the model's file, and sampled otherwise than the others of the class:
{rows}."""
UNTRAINED = """
{families}: autograd does not go through `rms_rope_split_half`, which ComfyUI calls in
`{file}`. The trainers say so before the first step; LoRAs from other tools
merge there, and are locked. {raising} in {form}: ComfyUI raises where an expert gets no token
(`{other}`), which the small one meets as soon as it trains.
{by_hand} was not tried in quantised formats, because part of the small model is made by hand."""
METHODS_TOLD = """
Every method of Train Safety LoRA trains, merges, is locked and is measured in function on
{shapes}, held in {held} (`tests/host/test_methods_held.py`).
{rules} need no gradient, so that they work on {computed} too. They edit linear layers that read
the prompt, and are refused on {past}, where it enters past those."""


def names_of(family: str) -> str:
    """Whose names a trained file has."""
    twin = zoo.TWINS[family]
    if "num_res_blocks" in twin.unet:
        return "kohya"
    return "diffusers" if of_class(twin.config).diffusers else "ComfyUI"


def sampled(row: Family) -> str:
    """How a preview of a family is made."""
    return f"{row.sampling.steps}, {row.sampling.guidance:g}"


def row(family: str) -> str:
    tried = ("".join(CASES.get((family, name), "not tried")) for name in FORMATS)
    twin = zoo.TWINS[family]
    cells = (twin.title, *tried, names_of(family), sampled(of_class(twin.config)))
    return f"| {' | '.join(cells)} |"


def where(module, call: str) -> str:
    """The file of a module of the host, which has the call that is spoken of."""
    assert call in Path(module.__file__).read_text(encoding="utf-8")
    return f"{module.__name__.replace('.', '/')}.py"


def document() -> str:
    """The table of docs/models.md, and below it where the host has no gradient."""
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join('---' for _ in HEAD)} |"]
    lines += [row(family) for family in zoo.TWINS]
    untrained = [each.title for each in zoo.TWINS.values() if not each.trains]
    file = where(predict2, "rms_rope_split_half(")
    other = where(quantization, "result = torch.cat(scaled_parts")
    raising, form = zoo.TWINS[RAISES[0]].title, RAISES[1]
    found = {"file": file, "other": other}
    by_hand = series([each.title for each in zoo.TWINS.values() if each.adjust])
    found |= {"raising": raising, "form": form, "by_hand": by_hand}
    told = ", ".join(
        f"{each.title} (`{each.word}`: {sampled(each)})" for each in FAMILIES if each.word
    )
    said = UNTRAINED.format(families=" and ".join(untrained), **found)
    return "\n".join([*lines, TOLD.format(rows=told), said, methods()])


def methods() -> str:
    """What is tried of the methods of erasing, and where those without steps can't be had."""
    computed = [key for key, twin in zoo.TWINS.items() if not twin.trains]
    titles = {key: twin.title for key, twin in zoo.TWINS.items()}
    return METHODS_TOLD.format(
        shapes=series([titles[key] for key in SHAPES]),
        held=series(HELD),
        rules=series([f"`{name}`" for name in RULES]),
        computed=series([titles[key] for key in computed if key not in PAST_LINEAR]),
        past=series([titles[key] for key in PAST_LINEAR]),
    )


def summary() -> str:
    """The table of the README: how many families of how many."""
    plain = [name for name, build in FORMATS.items() if build.func is not quantised]
    rows = ["| | " + " | ".join((", ".join(plain), "fp8, scaled fp8, mxfp8, int8, nvfp4")) + " |"]
    rows.append("| --- | --- | --- |")
    for title, letters in (("merge and lock", MERGE + LOCK), ("train", TASK + ANCHORED + SAFETY)):
        cells = []
        for quantised_too in (False, True):
            names = [name for name in FORMATS if (name not in plain) == quantised_too]
            found = [
                all(set(letters) <= set(CASES.get((family, name), "")) for name in names)
                for family in zoo.TWINS
            ]
            cells.append(f"{sum(found)} of {len(found)} families")
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def check() -> None:
    """The document and the README say what is tried; with MSL_WRITE_TABLE=1 they are made to."""
    for file, table in ((DOCUMENT, document()), (README, summary())):
        text = file.read_text(encoding="utf-8")
        before, mark, rest = text.partition(MARK)
        made = before + mark + table + END + rest.partition(END)[2]
        if WRITES:
            file.write_text(made, encoding="utf-8")
        assert mark and file.read_text(encoding="utf-8") == made, f"{file.name} is stale"
