"""A prompt set searched: what is kept, audited and continued, and that a failure is no success."""

import json

import numpy as np
import pytest
import small_clips
import torch
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation import run as evaluation
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import Defaults, read_prompts
from modular_safety_lora.host.prefixes import embeddings_in
from modular_safety_lora.host.sampling import Sampling
from modular_safety_lora.lab import zoo
from modular_safety_lora.searching import run as searching
from modular_safety_lora.searching.kept import OtherSearch
from modular_safety_lora.searching.run import EMBEDDINGS, FOUND, TOLD, Models, SearchJob, run
from modular_safety_lora.searching.search import search
from modular_safety_lora.searching.settings import Searching
from PIL import Image

import nodes

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPTS = ("a cat", "a (red:1.2) car")
HOW = Searching(kind="embedding", length=3, levels=1, iterations=3)


@pytest.fixture(scope="module")
def models():
    base, clip = small_clips.pair("SD15")
    model, name = base.clone(), "diffusion_model.input_blocks.0.0.weight"
    weight = base.model.state_dict()[name]
    assert model.add_patches({name: ("diff", (0.3 * torch.randn(weight.shape),))})
    return Models(base, model, clip, zoo.vae("SD15"))


def job(folder, how=HOW, preset="strict", **more) -> SearchJob:
    file = folder / "prompts.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(PROMPTS), encoding="utf-8")
    prompts = read_prompts(file, Defaults(width=64, height=64))
    keep = "all, as they are"
    audit = AuditJob("set", prompts, Rules(PRESETS[preset]), Sampling(2), folder / "run", keep)
    return SearchJob(audit, how, **more)


def rows(folder, part: str) -> dict:
    return json.loads((folder / "run" / part / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    steps, aims = [], []

    def seen(model, clip, text, picture, how, **more):
        aims.append((model, picture))
        return search(model, clip, text, picture, how, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "search", seen)
        run(models, job(folder, on_step=lambda *each: steps.append(each)))
    assert steps[-1] == (6, 6) and len(steps) == 8
    return folder, aims


def stock(model, clip, text: str, seed: int) -> dict:
    """The latents that stock nodes make of a prompt."""
    positive, negative = (nodes.CLIPTextEncode().encode(clip, each)[0] for each in (text, ""))
    latent = nodes.EmptyLatentImage().generate(64, 64)[0]
    told = seed, 2, 7.0, "euler", "normal", positive, negative, latent
    return nodes.KSampler().sample(model, *told)[0]


def test_the_model_is_searched_and_the_aim_is_the_bases_picture_of_the_same_seed(models, done):
    for number, (prompt, (model, aim)) in enumerate(zip(PROMPTS, done[1], strict=True), 1):
        assert model.clone_has_same_weights(models.model) and model.patches == models.model.patches
        for each, same in ((models.base, True), (models.model, False)):
            expected = stock(each, models.clip, prompt, number)["samples"]
            assert torch.allclose(aim, expected, atol=1e-4) == same


def test_pictures_are_those_of_the_stock_nodes_with_the_embedding_named(models, done):
    folder, _ = done
    texts = [row["prompt"] for row in rows(folder, FOUND)["images"]]
    assert [row["prompt"] for row in rows(folder, TOLD)["images"]] == list(PROMPTS)
    for number, (prompt, text) in enumerate(zip(PROMPTS, texts, strict=True), 1):
        assert text.startswith(f"embedding:{number:06d}-") and text.endswith(f" {prompt}")
        with embeddings_in(models.clip, folder / "run" / EMBEDDINGS):
            sampled = stock(models.model, models.clip, text, number)
        expected = nodes.VAEDecode().decode(models.vae, sampled)[0][0].detach().clamp(0, 1)
        kept, plain = (
            np.asarray(Image.open(folder / "run" / part / "pictures" / f"{number:06d}.png"))
            for part in (FOUND, TOLD)
        )
        assert np.abs(kept / 255 - expected.numpy()).max() < 0.51 / 255 + 1e-4
        assert (kept != plain).any(), "the prefix is before the prompt"


def test_what_was_found_is_not_searched_again(models, done):
    folder, _ = done
    before = {each.name for each in (folder / "run" / EMBEDDINGS).iterdir()}

    def on_step(*_):
        raise AssertionError("a search")

    told, found = run(models, job(folder, on_step=on_step))
    assert told["images"] == found["images"] == 2 and len(before) == 2
    assert {each.name for each in (folder / "run" / EMBEDDINGS).iterdir()} == before


def test_a_folder_of_another_search_is_refused(models, done):
    other = Searching(kind="embedding", length=3, levels=1, iterations=4)
    with pytest.raises(OtherSearch, match=r"another .*iterations.*another folder"):
        run(models, job(done[0], other))


def test_a_refused_search_counts_nothing_again(models, done):
    folder, _ = done
    before = (folder / "run" / TOLD / "report.json").read_bytes()
    with pytest.raises(OtherSearch, match="another rules preset"):
        run(models, job(folder, preset="faces"))
    assert (folder / "run" / TOLD / "report.json").read_bytes() == before


def test_a_search_that_fails_is_a_row_that_says_so(models, tmp_path):
    deaf, _ = small_clips.pair("SD15")
    for name, each in deaf.model.diffusion_model.named_parameters():
        if "attn2.to_out" in name:
            each.data.zero_()
    told, found = run(Models(models.base, deaf, models.clip, models.vae), job(tmp_path))
    assert told["images"] == 2 and found["images"] == 0 and found["unreadable"] == 2
    why = [row["reason"] for row in rows(tmp_path, FOUND)["unreadable"]]
    assert all(each.startswith("the search failed: no gradient of the loss") for each in why)
    assert "2 of 2 prompts gave no picture" in found["verdict"]


def test_a_prompt_that_gave_no_picture_as_told_is_none_that_held(models, tmp_path, monkeypatch):
    make, errors = evaluation.make_picture, [torch.OutOfMemoryError]

    def once_short_of_memory(*given, **more):
        if errors:
            raise errors.pop()
        return make(*given, **more)

    monkeypatch.setattr(evaluation, "make_picture", once_short_of_memory)
    for lost in (1, 0):
        told, found = run(models, job(tmp_path))
        assert told["unreadable"] == found["unreadable"] == lost
        if lost:
            [row] = rows(tmp_path, FOUND)["unreadable"]
            assert row["key"] == "000001" and row["reason"].startswith("as told: out of memory")


@pytest.mark.long
def test_a_prompt_that_is_flagged_as_told_needs_no_search(models, tmp_path, monkeypatch):
    from skimage.data import astronaut

    face = torch.from_numpy(astronaut().astype(np.float32) / 255)
    monkeypatch.setattr("modular_safety_lora.evaluation.run.make_picture", lambda *_, **__: face)
    told, found = run(models, job(tmp_path, preset="faces"))
    assert told["flagged"] == found["flagged"] == 2
    assert not list((tmp_path / "run").glob(f"{EMBEDDINGS}/*"))
    assert [row["prompt"] for row in rows(tmp_path, FOUND)["images"]] == list(PROMPTS)


@pytest.mark.long
def test_a_search_that_is_stopped_keeps_what_was_found(models, tmp_path):
    class Stopped(Exception):
        pass

    def on_step(done: int, total: int):
        if done > total / 2:
            raise Stopped

    with pytest.raises(Stopped):
        run(models, job(tmp_path, on_step=on_step))
    assert len(list((tmp_path / "run" / EMBEDDINGS).iterdir())) == 1
    steps = []
    run(models, job(tmp_path, on_step=lambda *each: steps.append(each)))
    assert steps[-1] == (3, 3)
