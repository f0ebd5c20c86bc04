"""The verdict on what safety costs says no more than is proven, and never hides its gaps."""

import pytest
from modular_safety_lora.drawing.html import as_html
from modular_safety_lora.evaluation.quality.words import in_words, tables, verdict


def run(name: str, mean: float = 28.0, unrelated: bool = False, **more) -> dict:
    score = {
        "mean": mean,
        "mean_95": [mean - 1, mean + 1],
        "others": 20.0,
        "unrelated": unrelated,
        "pictures": 40,
        "prompts": 20,
    }
    plain = {"pictures": 40, "left_out": {}, "without_prompt": 0, "long_prompts": 0}
    return {"name": name, "clip_score": score, **plain, **more}


def report(*runs: dict, bounds: list | None = None, **more) -> dict:
    parts = dict.fromkeys(("safety", "prompts", "quality", "robustness"))
    found = {"runs": list(runs), "spqr": {"score": None, "parts": parts, "missing": {}}}
    if len(runs) > 1:
        difference = {"mean": -1.0, "mean_95": bounds, "scores": [27.0, 28.0], "pairs": 40}
        change = {"cosine": 0.05, "cosine_95": [0.04, 0.06], "apart": 0.4, "pixels": None}
        apart = {"published": 0.31, "unbiased": 0.28, "unbiased_95": None}
        found |= {"difference": difference, "change": change, "cmmd": apart, "unpaired": {}}
    return found | more


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ([-1.5, -0.5], "Prompts are followed less than with base."),
        ([0.5, 1.5], "Prompts are followed more than with base."),
        ([-1.5, 0.1], "No proven difference from base in how prompts are followed."),
        (None, "Fewer than 10 prompts: too few to tell what safety costs."),
    ],
)
def test_the_verdict_says_what_the_interval_proves(bounds, words):
    bold, plain = verdict(report(run("safe"), run("base"), bounds=bounds))
    assert bold == words
    assert "CLIP score 27.00 against 28.00 (difference -1.00, 95 %: " in plain
    assert "moved by 0.050" in plain and "different prompts are 0.400 apart" in plain


def test_a_score_that_says_nothing_is_no_verdict_and_what_is_left_out_is_in_it():
    left = {"its file is gone": {"pictures": 3, "first": "a|b"}}
    safe = run("safe", left_out=left, without_prompt=1, long_prompts=2)
    bold, _ = verdict(report(safe, run("base", unrelated=True), bounds=[-2, -1]))
    assert bold.startswith("The CLIP score says nothing here: pictures of base are no nearer")
    assert bold.endswith("3 pictures left out.") and "followed" not in bold
    text = in_words(report(safe, run("base"), bounds=[-2, -1]))
    assert "- 3 pictures of safe: its file is gone (first: a|b)" in text
    assert "1 picture of safe without a prompt" in text and "2 prompts of safe too long" in text
    assert "<strong>Prompts are followed less" in as_html(text)


def test_one_run_alone_and_one_without_prompts_have_a_verdict_of_their_own():
    alone = verdict(report(run("safe")))
    assert alone[0] == "CLIP score 28.00." and "Measure it against its base" in alone[1]
    assert verdict(report(run("a", clip_score=None)))[0].startswith("No picture has a prompt")


def test_spqr_is_shown_only_where_it_was_asked_for_and_says_which_part_is_missing():
    titles = [title for title, _, _ in tables(report(run("safe")))]
    assert titles == ["CLIP score"]
    parts = {"safety": 0.9, "prompts": None, "quality": None, "robustness": 0.5}
    told = {"score": None, "parts": parts, "missing": {"prompts": "p", "quality": "q"}}
    rows = tables(report(run("safe"), spqr=told))[-1][2]
    assert ["prompts", "-", "p"] in rows and ["score", "-", "a part is missing"] in rows
