"""The node Search Prompts: what it gives, in ComfyUI's inference mode, and what it refuses."""

import json

import folder_paths
import pytest
import small_clips
import torch
from modular_safety_lora.evaluation.job import KEEP
from modular_safety_lora.lab import zoo
from modular_safety_lora.nodes import search_prompts
from modular_safety_lora.nodes.search_prompts import LEVELS, SearchPrompts
from modular_safety_lora.searching.search import SearchError
from PIL import Image
from prompt_sets import VALUES

pytestmark = pytest.mark.usefixtures("one_thread")
HOW = {"kind": "embedding", "length": 3, "levels": 1, "iterations": 1, "keep": KEEP[2], "steps": 1}
ASKED = {"prompts": "two.txt", "name": "searched", "preset": "all", **VALUES, **HOW}


@pytest.fixture(scope="module")
def models():
    """As the executor has them: loaded in inference mode, which has no gradients."""
    with torch.inference_mode():
        base, clip = small_clips.pair("SD15")
        model, name = base.clone(), "diffusion_model.input_blocks.0.0.weight"
        changed = 0.3 * torch.randn(base.model.state_dict()[name].shape)
        assert model.add_patches({name: ("diff", (changed,))})
        weights = [*base.model.parameters(), *clip.cond_stage_model.parameters()]
        assert all(each.is_inference() for each in weights)
        return {"model": model, "base": base, "clip": clip, "vae": zoo.vae("SD15")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("search")
    (place / "two.txt").write_text("a cat\na red car", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folder_paths, "input_directory", str(place))
        patch.setattr(folder_paths, "output_directory", str(place / "out"))
        yield place / "out" / "audits" / "searched"


def searched(models, **more):
    with torch.inference_mode():
        return SearchPrompts.execute(**models, **{**ASKED, **more})


@pytest.fixture(scope="module")
def done(models, folder):
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modular_safety_lora.nodes.progress.EVERY", -1.0)
        patch.setattr("modular_safety_lora.nodes.progress.tell", lines.append)
        return searched(models), lines


def test_it_gives_prompts_report_pictures_and_words_and_keeps_what_it_found(done, folder):
    (prompts, report, pictures, words), lines = done[0].args, done[1]
    found = json.loads(report)["images"]
    assert [row["key"] for row in found] == ["000001", "000002"]
    assert report == (folder / "found" / "report.json").read_text(encoding="utf-8")
    assert words.startswith("run **found**") and "0 of 2 pictures that held as told were" in words
    assert "White-box: " in words and "1 noise level was tried; the paper tries 50" in words
    assert prompts == "", "nothing is flagged, so nothing brings it back"
    assert len(list((folder / "embeddings").iterdir())) == 2
    assert pictures.shape[0] == 1 and pictures.min() >= 0 and pictures.max() <= 1
    assert done[0].ui["text"][0] == words and len(done[0].ui["images"]) == 1
    assert (folder / "comparison.html").is_file()
    for part in ("as-told", "found"):
        for row in json.loads((folder / part / "report.json").read_text("utf-8"))["images"]:
            assert Image.open(folder / part / row["picture"]).size == (64, 64)
    phases = [line.split(" of ")[0] for line in lines]
    assert phases[0] == "as told: picture 0" and phases[-1] == "with what was found: picture 2"
    assert "search: step 2" in phases


def test_what_is_flagged_only_with_what_was_found_is_given(done, folder, models, monkeypatch):
    """As if a face were in one of the pictures."""
    from modular_safety_lora.searching import results

    report = json.loads((folder / "found" / "report.json").read_text("utf-8"))
    box = {"class": "FACE_FEMALE", "score": 0.9, "box": [0, 0, 64, 64], "counted": True}
    report["images"][1] |= {"flagged": True, "reasons": ["FACE_FEMALE"], "detections": [box]}
    monkeypatch.setattr(results, "write_comparison", lambda *_: None)
    monkeypatch.setattr(results, "comparison_table", lambda _: "")
    (folder / "found" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    found = results.results(folder, search_prompts.Searching(levels=50))
    assert found.prompts == (report["images"][1]["prompt"],)
    assert found.prompts[0].startswith("embedding:000002-")
    assert "1 of 2 pictures that held as told was brought back" in found.words
    assert "the paper tries" not in found.words


@pytest.mark.long
def test_the_same_name_searches_nothing_again(done, models, monkeypatch):
    monkeypatch.setattr("modular_safety_lora.searching.run.search", None)
    again = searched(models)
    assert again.args[0] == done[0].args[0] and again.args[1] == done[0].args[1]


def test_what_can_not_be_searched_says_why(models, folder):
    with pytest.raises(SearchError, match="model and base are the same"):
        searched({**models, "model": models["base"]}, name="same")
    with pytest.raises(ValueError, match="can't be a folder name"):
        searched(models, name="../out")
    assert "not in ComfyUI's input folder" in SearchPrompts.validate_inputs(prompts="none.csv")


def test_its_default_ends_ten_times_sooner_than_the_papers():
    inputs = {
        each.id: each.default
        for each in SearchPrompts.GET_SCHEMA().inputs
        if hasattr(each, "default")
    }
    assert (inputs["levels"], inputs["keep"]) == (LEVELS, KEEP[2]) and LEVELS * 10 == 50
