"""What safety costs: ComfyUI's CLIP against transformers', and what is left out is said."""

import contextlib
import hashlib
import json
import math
import sqlite3

import numpy as np
import pytest
import torch
from modular_safety_lora.evaluation.quality.cache import FILE
from modular_safety_lora.evaluation.quality.embeddings import QualityError
from modular_safety_lora.evaluation.quality.encoders import Encoders
from modular_safety_lora.evaluation.quality.spqr import Scale
from quality_runs import (
    PROMPTS,
    TWELVE,
    WIDTH,
    changed,
    clip,
    measure,
    pair,
    pictures,
    reference,
    run_folder,
    vision,
)
from torchmetrics.functional.multimodal.clip_score import clip_score as theirs


def counted(monkeypatch) -> list[str]:
    """What the encoders are asked from here on."""
    asked: list[str] = []

    def noted(name: str):
        own = getattr(Encoders, name)

        def called(self, what):
            asked.append(name)
            return own(self, what)

        return called

    for name in ("picture", "text"):
        monkeypatch.setattr(Encoders, name, noted(name))
    return asked


def test_clip_score_is_that_of_torchmetrics_with_transformers_clip(tmp_path):
    """Pictures of the network's size: nothing is resized, which the two do in ways of their own."""
    model, processor = reference()
    shown = pictures(size=224)
    found = measure(run_folder(tmp_path / "run", shown)).report["runs"][0]

    class Plain:
        """The features alone, whatever this version of transformers puts around them."""

        config = model.config

        def to(self, _):
            return self

        def get_image_features(self, values):
            return tensor(model.get_image_features(values))

        def get_text_features(self, ids, mask):
            return tensor(model.get_text_features(ids, mask))

    images = [torch.from_numpy(each.copy()).movedim(-1, 0) for each in shown]
    with torch.no_grad():
        score = float(theirs(images, list(PROMPTS), lambda: (Plain(), processor)).detach())
    assert found["clip_score"]["mean"] == pytest.approx(score, abs=1e-3)
    assert found["long_prompts"] == 0 and found["pictures"] == 6


def test_of_a_long_prompt_the_beginning_counts_as_transformers_cuts_it(tmp_path):
    model, processor = reference()
    prompt = "A tree, " + "very old and tall, " * 40
    told = processor.tokenizer([prompt], return_tensors="pt", truncation=True, max_length=77)
    with torch.no_grad():
        own = tensor(model.get_text_features(**told))[0].numpy()
    assert Encoders(*pair()).text(prompt) == pytest.approx(own, abs=1e-4)
    found = measure(run_folder(tmp_path / "run", pictures(3), ["a cat", prompt]))
    assert found.report["runs"][0]["long_prompts"] == 1
    assert "1 prompt of run too long" in found.words


def tensor(found) -> torch.Tensor:
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def test_two_runs_are_paired_and_a_second_measure_asks_no_network(tmp_path, monkeypatch):
    shown = pictures(12)
    base = run_folder(tmp_path / "base", shown, TWELVE)
    safe = run_folder(tmp_path / "safe", changed(shown), TWELVE)
    asked = counted(monkeypatch)
    first = measure(safe, against=base)
    assert asked.count("picture") == 24 and asked.count("text") == 12
    report = first.report
    assert [each["name"] for each in report["runs"]] == ["safe", "base"]
    assert report["change"]["pairs"] == 12 and report["cmmd"]["pictures"] == [12, 12]
    most = report["change"]["most"]
    assert [each["cosine"] for each in most] == sorted((e["cosine"] for e in most), reverse=True)
    pixels = {each["name"]: each["pixels"] for each in most}
    assert pixels["000001"] == 0
    apart = np.abs(shown[11].astype(float) - changed(shown)[11]).mean() / 255
    assert pixels["000012"] == pytest.approx(apart, abs=1e-6)
    difference = report["difference"]
    means = [each["clip_score"]["mean"] for each in report["runs"]]
    assert difference["mean"] == pytest.approx(means[0] - means[1]) and difference["pairs"] == 12
    assert difference["scores"] == pytest.approx(means) and len(difference["mean_95"]) == 2
    again = measure(safe, against=base)
    assert again.report == report and len(asked) == 36
    assert json.loads((safe / "quality.json").read_text(encoding="utf-8")) == report
    assert (
        report["runs"][0]["report_sha256"]
        == hashlib.sha256((safe / "report.json").read_bytes()).hexdigest()
    )


@pytest.mark.long
def test_what_is_kept_of_another_model_or_damaged_is_made_again(tmp_path, monkeypatch):
    run = run_folder(tmp_path / "run", pictures())
    first = measure(run).report
    with contextlib.closing(sqlite3.connect(run / FILE)) as database, database:
        database.execute(
            "update vectors set vector = ? where length(vector) = ?", (b"abc", 4 * WIDTH)
        )
    asked = counted(monkeypatch)
    assert measure(run).report == first and len(asked) == 12
    other = vision()
    with torch.no_grad():
        other.model.visual_projection.weight.mul_(-1)
    again = measure(run, models=(other, pair()[1])).report["runs"][0]["clip_score"]["mean"]
    assert again == pytest.approx(-first["runs"][0]["clip_score"]["mean"], abs=1e-4)
    assert asked[12:] == ["picture"] * 6
    (run / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(QualityError, match="Delete this file"):
        measure(run)


def test_a_stopped_measure_keeps_what_it_looked_at(tmp_path, monkeypatch):
    run = run_folder(tmp_path / "run", pictures())

    def stop(done, total):
        assert total == 12
        if done == 4:
            raise KeyboardInterrupt

    asked = counted(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        measure(run, on_step=stop)
    assert asked == ["picture"] * 3 and not (run / "quality.json").exists()
    measure(run)
    assert asked.count("picture") == 6


def test_models_that_are_no_pair_are_refused_with_the_way_out():
    seen, told = pair()
    with pytest.raises(
        QualityError, match="has no projection: its file did not bring one. Load the"
    ):
        Encoders(seen, clip(projected=False))
    wide = vision()
    wide.config = {**wide.config, "projection_dim": 64}
    with pytest.raises(
        QualityError, match="gives 64 values, and the text encoder has a projection l of 32"
    ):
        Encoders(wide, told)
    other = vision()
    other.model_type = "siglip_vision_model"
    with pytest.raises(QualityError, match="is a siglip_vision_model"):
        Encoders(other, told)
    bent = told.clone()
    name = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    bent.add_patches({name: (torch.ones(64, WIDTH),)}, 0.1)
    with pytest.raises(QualityError, match="clip has LoRAs or other changes on it"):
        Encoders(seen, bent)


def test_a_measure_leaves_the_text_encoder_as_it_was():
    seen, told = pair()
    before = told.encode_from_tokens(told.tokenize("a cat"), return_pooled=True)
    Encoders(seen, told).text("a cat")
    after = told.encode_from_tokens(told.tokenize("a cat"), return_pooled=True)
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])


@pytest.mark.long
def test_spqr_takes_all_four_runs_and_says_what_is_missing(tmp_path, monkeypatch):
    shown = pictures(12)
    base = run_folder(tmp_path / "base", shown, TWELVE)
    safe = run_folder(tmp_path / "safe", changed(shown), TWELVE)
    harmful = run_folder(tmp_path / "harmful", [None] * 20, flagged=(0,))
    tuned = run_folder(tmp_path / "tuned", [None] * 20, flagged=(0, 1))
    all_of_it = {"against": base, "harmful": harmful, "tuned": tuned, "scale": Scale(0.0, 5.0)}
    mixed = measure(safe, **all_of_it).report["spqr"]
    assert mixed["missing"] == {"prompts": "the CLIP score says nothing here"}, "it is random"
    for each in (base, safe):
        (each / "embeddings.sqlite").unlink()
    of = dict(zip(TWELVE, shown, strict=True))
    monkeypatch.setattr(Encoders, "text", lambda self, prompt: self.picture(of[prompt]))
    found = measure(safe, **all_of_it).report
    parts = found["spqr"]["parts"]
    assert parts["safety"] == pytest.approx(0.95)
    assert parts["robustness"] == pytest.approx(1 / (1 + math.exp(5)))
    assert parts["prompts"] == pytest.approx(found["difference"]["scores"][0] / 100, abs=1e-6)
    mean = 4 / sum(1 / each for each in parts.values())
    assert found["spqr"]["score"] == pytest.approx(mean)
    for name, part in (
        ("harmful", "safety"),
        ("tuned", "robustness"),
        ("scale", "quality"),
        ("against", "prompts"),
    ):
        told = measure(safe, **{key: each for key, each in all_of_it.items() if key != name})
        assert told.report["spqr"]["score"] is None and part in told.report["spqr"]["missing"]
    assert measure(safe, **all_of_it | {"tuned": harmful}).report["spqr"]["score"] is None
