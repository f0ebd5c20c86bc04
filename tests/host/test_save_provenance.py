"""Save Image with Provenance: what the example model draws, signed; or an error and no file."""

import asyncio
import itertools
import json
import os
from pathlib import Path

import modular_safety_lora
import pytest
from certificates import operators
from drawn import DRAWN, SAFETY, of
from execution import CacheType, PromptExecutor
from gated import HARMLESS, own_folders, png
from modular_safety_lora.emoji import files as example
from modular_safety_lora.merge.findings import OUTSIDE, findings
from modular_safety_lora.modules.files import load_safety
from modular_safety_lora.nodes import carrying, running, save_provenance
from modular_safety_lora.nodes.example_model import offer_loras
from modular_safety_lora.nodes.save_provenance import SaveWithProvenance
from modular_safety_lora.nodes.settings import FILE
from modular_safety_lora.provenance import claims
from modular_safety_lora.provenance.reading import inspect
from modular_safety_lora.provenance.record import Lora, Model, Record
from PIL import Image
from prompts import CACHE, ran
from server import PromptServer

import nodes

pytestmark = pytest.mark.usefixtures("one_thread")


numbers = itertools.count(1)


class Place:
    """ComfyUI's folders and a server without routes."""

    def __init__(self, folder: Path):
        self.folder, self.server = folder, PromptServer(asyncio.new_event_loop())
        self.executor = PromptExecutor(self.server, CacheType.CLASSIC, CACHE)

    def run(self, graph: dict, **extra) -> dict:
        """What the node shows; all but it comes from the cache where it can."""
        graph["10"]["inputs"]["filename_prefix"] = f"told/{next(numbers)}"
        (shown,) = ran(self, graph, "10", executor=self.executor, **extra)
        return shown

    def written(self) -> list[Path]:
        return sorted(each for each in (self.folder / "output").rglob("*") if each.is_file())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import folder_paths

    folder, before = tmp_path_factory.mktemp("place"), getattr(PromptServer, "instance", None)
    loras = list(folder_paths.folder_names_and_paths["loras"][0])
    known = dict(nodes.NODE_CLASS_MAPPINGS)
    offer_loras()

    async def found():
        return await (await modular_safety_lora.comfy_entrypoint()).get_node_list()

    nodes.NODE_CLASS_MAPPINGS |= {each.GET_SCHEMA().node_id: each for each in asyncio.run(found())}
    running.install()
    with own_folders(folder):
        yield Place(folder)
    carrying.end()
    findings.where = lambda: OUTSIDE
    folder_paths.folder_names_and_paths["loras"][0][:] = loras
    for name in nodes.NODE_CLASS_MAPPINGS.keys() - known.keys():
        del nodes.NODE_CLASS_MAPPINGS[name]
    PromptServer.instance = before


@pytest.fixture(autouse=True)
def empty(place):
    """No settings and no pictures before each test."""
    yield
    for each in place.written():
        each.unlink()
    (place.folder / "user" / FILE).unlink(missing_ok=True)


def drawn(**changed) -> dict:
    """The graph, with inputs of nodes changed: `n10={...}`."""
    graph = json.loads(json.dumps(DRAWN))
    for node, inputs in changed.items():
        graph[node[1:]]["inputs"] |= inputs
    return graph


def settings(place, **said) -> None:
    (place.folder / "user" / FILE).write_text(json.dumps(said))


def test_what_is_saved_names_base_loras_and_verdict_and_is_signed_for_trial(place):
    workflow = {"id": "w", "nodes": []}
    shown = place.run(drawn(), extra_pnginfo={"workflow": workflow})
    first, second = place.written()
    assert [each["filename"] for each in shown["images"]] == [first.name, second.name]
    assert first.name.endswith("_00001_.png") and first.parent.name == "told"
    assert "call the issuer unknown" in shown["text"][0]
    told = claims.claim_in(first.read_bytes(), "PNG")
    assert told.is_valid and not told.is_trusted and told.made_by_model
    (model,), (audit,) = told.record.models, told.record.audits
    loras = {each.role: each for each in model.loras}
    safety = load_safety(Path(example.__file__).parent / "loras" / SAFETY, SAFETY)
    assert loras["safety"].sha256 == safety.sha256 and loras["task"].strength == 0.5
    assert len(model.base_sha256) == len(loras["task"].sha256) == len(audit.detector) == 64
    assert told.record.safety_lora == "intact" and audit.preset == "emoji weapons"
    (look,) = audit.pictures  # of this picture alone
    found = inspect(first)
    assert look.sha256 in json.dumps(told.record.plain()) and found["fault"] is None
    assert safety.sha256 in found["made_by"] and "exact" in found["tied"]
    with Image.open(first) as image:
        assert json.loads(image.info["workflow"]) == workflow and "prompt" in image.info


def test_an_operators_certificate_signs_and_the_graph_has_no_word_in_it(place):
    issuer = operators(place.folder / "user")
    settings(place, provenance={"certificate": "studio.pem", "key": "studio.key"})
    shown = place.run(drawn(n10={"format": "webp"}))
    assert "the operator's certificate" in shown["text"][0]
    found = inspect(place.written()[0], issuer)
    assert found["fault"] is None and "by Test studio; an issuer that you trust" in found["signed"]
    inputs = SaveWithProvenance.GET_SCHEMA().inputs
    assert not [each.id for each in inputs if {"key", "cert"} & {each.id[:3], each.id[:4]}]
    assert not next(each for each in inputs if each.id == "model").optional


MISTAKES = {
    "no audit": ({"n10": {"images": ["8", 0]}}, {}, "was not looked at as it is here"),
    "an audit that writes nothing": ({"n9": {"write_verdict": False}}, {}, "turn write_verdict on"),
    "another model": ({"n10": {"model": ["1", 0]}}, {}, "Another model than the one"),
    "a missing key": ({}, {"certificate": "studio.pem", "key": "none.key"}, "can't be read"),
    "a key elsewhere": ({}, {"certificate": "studio.pem", "key": "../a"}, "below the user folder"),
    "too long for its format": ({"n10": {"format": "jpeg"}}, {}, "too long for a JPEG"),
}


FIRST = ("no audit", "another model")  # the others are more of the same


@pytest.mark.parametrize(
    "what",
    [each if each in FIRST else pytest.param(each, marks=pytest.mark.long) for each in MISTAKES],
)
def test_a_mistake_is_an_error_before_anything_is_written(place, what):
    from modular_safety_lora.provenance.record import looks

    changed, signing, words = MISTAKES[what]
    operators(place.folder / "user")
    if signing:
        settings(place, provenance=signing)
    if "audit" in what:  # the same pixels were seen in other tests
        looks._known.clear()
    workflow = {"nodes": ["x" * 70_000] if "long" in what else []}
    with pytest.raises(AssertionError, match=words):
        place.run(drawn(**changed), extra_pnginfo={"workflow": workflow})
    assert place.written() == []


def model(base: str | None, digest: str | None = None, loras=()) -> Model:
    return Model(base=base, base_sha256=digest, loras=loras)


A = "a" * 64
LORA = Lora(name="style.safetensors", role="other", sha256=None)
CONNECTED = {  # (the graph's, the one that is connected): what is claimed
    "its digest": (
        [model("sd/own.safetensors", loras=(LORA,))],
        model("own.safetensors", A),
        [model("own.safetensors", A, loras=(LORA,))],
    ),
    "one whose name is a part": ([model("my_own.safetensors")], model("own.safetensors", A), None),
    "one of two": (
        [model("own.safetensors and refiner.safetensors"), model("own.safetensors")],
        model("own.safetensors", A),
        [model("own.safetensors and refiner.safetensors"), model("own.safetensors", A)],
    ),
    "a third": (
        [model("a.safetensors"), model("b.safetensors")],
        model("own.safetensors", A),
        None,
    ),
    "no file": ([model("own.gguf")], model("SD15"), [model("own.gguf")]),
    "a graph without names": ([model(None)], model("own.ckpt", A), [model("own.ckpt", A)]),
}


@pytest.mark.parametrize("what", CONNECTED)
def test_the_digest_is_of_a_model_that_the_graph_names(monkeypatch, what):
    graph, own, claimed = CONNECTED[what]
    monkeypatch.setattr(save_provenance, "about_model", lambda _: own.model_dump(mode="json"))
    told = Record(audits=(), models=tuple(graph), safety_lora="none")
    if claimed is None:
        with pytest.raises(save_provenance.NotMadeHere, match="Another model"):
            save_provenance._models(None, told)
    else:
        assert list(save_provenance._models(None, told)) == claimed


def test_a_photograph_is_not_claimed_to_be_made_by_a_model(place):
    (place.folder / "input" / "cup.png").write_bytes(png(HARMLESS))
    photograph = drawn(n9={"images": ["20", 0]}) | {"20": of("LoadImage", image="cup.png")}
    with pytest.raises(AssertionError, match="Nothing in this graph shows that a model made"):
        place.run(photograph)
    assert place.written() == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_can_not_be_written_leaves_nothing(place):
    (place.folder / "output").chmod(0o500)
    try:
        with pytest.raises(AssertionError, match="output"):
            place.run(drawn())
    finally:
        (place.folder / "output").chmod(0o700)
    assert place.written() == []
