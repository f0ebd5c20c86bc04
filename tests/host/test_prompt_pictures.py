"""Several pictures of each prompt: a seed each, a row each, and intervals that know the prompt."""

import json
from dataclasses import replace

import pytest
from modular_safety_lora.audit.compare import FLIPS, compare, comparison_table
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.reading import CompareError, parsed
from modular_safety_lora.audit.report import Tally
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.audit.stats import clustered, kinds_of, wilson
from modular_safety_lora.audit.words import in_words
from modular_safety_lora.evaluation import run as evaluation
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import PromptSetError, Selection, read_prompts
from modular_safety_lora.evaluation.rows import Made
from modular_safety_lora.host.sampling import Sampling
from prompt_sets import audited
from test_compare import report_of


def of(i2p, folder, pictures: int, **more) -> AuditJob:
    rows = read_prompts(i2p, selection=Selection(pictures=pictures))
    return AuditJob("i2p", rows, Rules(PRESETS["all"]), Sampling(1), folder, **more)


def test_each_picture_of_a_prompt_has_the_next_seed_and_a_key_of_its_own(i2p):
    found = read_prompts(i2p, selection=Selection(pictures=3, limit=2))
    assert [each.seed for each in found][:3] == [2319341, 2319342, 2319343]
    assert [each.key for each in found][1:4] == ["000001-002", "000001-003", "000002"]
    assert {each.text for each in found[:3]} == {"a cat, asleep"} and found.rows == 2
    assert [(each.prompt_key, each.number) for each in found[:2]] == [("", 1), ("000001", 2)]
    assert repr(found[0]) == repr(read_prompts(i2p)[0]), "its row of an earlier version counts"


def test_keys_and_seeds_that_there_can_not_be_are_refused(tmp_path):
    file = tmp_path / "set.csv"
    file.write_text("prompt,id,seed\na,x,0\nb,x-002,18446744073709551615\n", encoding="utf-8")
    assert len(read_prompts(file)) == 2
    with pytest.raises(PromptSetError, match="the seed 18446744073709551616 is not in"):
        read_prompts(file, selection=Selection(pictures=2))
    file.write_text("prompt,id\na,x\nb,x-002\n", encoding="utf-8")
    with pytest.raises(PromptSetError, match=r"1 key used by more than one picture .*x-002"):
        read_prompts(file, selection=Selection(pictures=2))


def test_a_folder_with_one_picture_a_prompt_goes_on_and_every_picture_is_another(
    parts, i2p, tmp_path
):
    before = audited(parts, of(i2p, tmp_path / "run", 1, keep="all, as they are"))
    made = []

    def watch(done, picture):
        made.append(picture is not None)

    more = of(i2p, tmp_path / "run", 2, keep="all, as they are", on_picture=watch)
    report = audited(parts, more)
    assert sum(made) == 3, "what is there is not made again"
    assert [row for row in report["images"] if "number" not in row] == before["images"]
    pictures = {path.read_bytes() for path in (tmp_path / "run" / "pictures").iterdir()}
    assert len(pictures) == 6
    summary = report["summary"]
    assert summary["prompts"]["selected"] == 3 and summary["prompts"]["pictures"] == 2
    assert (summary["images"], summary["prompts_seen"]) == (6, 3)
    seconds = [row for row in report["images"] if "number" in row]
    alone = {"000001-002": 2319342, "000002-002": 3969596300, "000003-002": 78}
    assert {row["key"]: row["seed"] for row in seconds} == alone
    few = audited(parts, of(i2p, tmp_path / "run", 1))["summary"]
    assert few["rows_left_out"] == 3 and "prompts_seen" not in few


def test_rates_are_by_picture_and_by_prompt(parts, i2p, tmp_path, monkeypatch):
    """The first prompt's pictures are flagged, two of them; one of the second can't be made."""
    hit = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [2, 2, 4, 4], "counted": True}
    flagged, failing = {"000001", "000001-003"}, "000002-002"

    def looked_at(maker, prompt):
        row = {"key": prompt.key, "prompt": prompt.text, "groups": list(prompt.categories)}
        if prompt.prompt_key:
            row |= {"prompt_key": prompt.prompt_key, "number": prompt.number}
        if prompt.key == failing:
            return Made(row | {"unreadable": "it failed"})
        found = [hit] if prompt.key in flagged else []
        reasons = ["ANUS_EXPOSED"] if found else []
        return Made(row | {"flagged": bool(found), "reasons": reasons, "detections": found})

    monkeypatch.setattr(evaluation.Maker, "_looked_at", looked_at)
    strict = replace(of(i2p, tmp_path / "run", 3), rules=Rules(PRESETS["strict"]))
    summary = evaluation.run(*parts, strict)
    kinds = kinds_of([(2, 3), (0, 2), (0, 3)])
    assert (summary["images"], summary["flagged"], summary["flagged_rate"]) == (8, 2, 0.25)
    assert summary["flagged_rate_95"] == pytest.approx(clustered(kinds), abs=1e-6)
    assert summary["classes"]["ANUS_EXPOSED"]["rate_95"] == summary["flagged_rate_95"]
    assert clustered(kinds)[1] > wilson(2, 8)[1] + 0.02
    assert (summary["prompts_seen"], summary["prompts_flagged"]) == (3, 1)
    assert summary["prompt_rate_95"] == pytest.approx(wilson(1, 3), abs=1e-6)
    shocking = summary["categories"]["shocking"]
    assert shocking["prompts_seen"] == 1 and shocking["flagged_rate_95"] == [0.0, 1.0]
    assert "1 of 9 pictures could not be made (first: 000002-002" in summary["not_made"]
    words = in_words(summary)
    assert "1 of 3 prompts gave a flagged picture: 33.3 %" in words
    assert "with 8 pictures of 3 prompts it may lie" in words
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for shown in ("prompts flagged", "pictures not made", "3 pictures a prompt"):
        assert shown in page, shown


def several(flags, prompts: int = 4) -> dict:
    """A report of three pictures a prompt."""
    keys = [f"{place:03d}" for place in range(len(flags))]
    report = report_of(flags, keys=keys)
    for place, image in enumerate(report["images"]):
        image["prompt_key"] = f"prompt {place % prompts}"
    report["summary"] |= Tally(PRESETS["strict"]).of(report["images"]).counts()
    return report


def test_compared_audits_are_tested_by_prompt():
    """Twelve pictures of four prompts differ: by picture that is proof, by prompt it is not."""
    found = compare({"base": several([1] * 12), "safe": several([0] * 12)})
    (pair,) = found["pairs"]
    assert pair["test"] == FLIPS and pair["p"] == pytest.approx(2 / 2**4)
    assert pair["difference_95"][0] < 0.25 and pair["difference"] == 1.0
    text = comparison_table(found)
    assert "12 pictures of 4 prompts each" in text and "No proven difference" in text
    assert "The exact p of sign flips by prompt" in text and "McNemar" not in text
    assert "prompts flagged" in text
    plain = compare({"base": report_of([1] * 12), "safe": report_of([0] * 12)})
    assert "McNemar's exact p" in comparison_table(plain)
    assert "by prompt" not in comparison_table(plain)


def test_pictures_that_are_left_alone_of_their_prompts_count_as_one_each():
    one = several([1, 0, 1, 0, 1, 0, 1, 0])
    other = several([1, 1, 0, 0])
    found = compare({"base": one, "safe": other})
    assert found["pairs"][0]["test"] != FLIPS and "prompts_seen" not in found["audits"][0]


@pytest.mark.parametrize("key", ["prompts_flagged", "prompt_rate", "flagged_rate_95"])
def test_a_report_whose_counts_by_prompt_are_not_those_of_its_rows_is_refused(key):
    wrong = several([1, 0] * 6)
    wrong["summary"][key] = [0.0, 0.1] if key.endswith("95") else 1
    read = parsed("wrong", json.dumps(wrong))
    with pytest.raises(CompareError, match=f"contradicts itself: {key} is"):
        compare({"base": several([0] * 12), "wrong": read})
    plain = report_of([1, 0])
    plain["summary"]["prompts_flagged"] = 1
    with pytest.raises(CompareError, match="prompts_flagged is 1 in its summary, and None by"):
        compare({"base": plain, "safe": plain})
