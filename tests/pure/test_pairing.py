"""Reports to be compared: whose pictures are whose, and those that contradict themselves."""

import json

import pytest
from modular_safety_lora.audit.compare import compare, comparison_table, verdict
from modular_safety_lora.audit.compared_chart import chart
from modular_safety_lora.audit.detectors.registry import find
from modular_safety_lora.audit.opinion import judge
from modular_safety_lora.audit.pairing import paired
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.reading import CompareError, parsed
from modular_safety_lora.audit.report import Tally, as_text


def report_of(flags: dict[str, bool], what: str = "path", **more) -> dict:
    """An audit's report of pictures by name; what more is said of them stands in its summary."""
    hit = {"class": "ANUS_EXPOSED", "score": 0.9, "box": [2, 2, 4, 4]}
    results = [
        {what: name, **judge([hit] if flag else [], PRESETS["strict"])}
        for name, flag in flags.items()
    ]
    summary = Tally(PRESETS["strict"]).of(results).summary(find())
    return {"images": results, "unreadable": [], "summary": summary | more}


def test_pictures_of_folders_are_paired_by_path_and_the_others_listed():
    base = report_of({"base/a.png": True, "base/b.png": True, "base/x/c.png": True})
    safe = report_of({"safe/b.png": False, "safe/d.png": True, "safe/x/c.png": True})
    safe["unreadable"] = [{"path": "safe/a.png", "reason": "empty"}]
    found = compare({"base": base, "safe": safe})
    assert [each["images"] for each in found["audits"]] == [2, 2]
    assert [each["flagged"] for each in found["audits"]] == [2, 1], "of those that are paired"
    assert (found["pairs"][0]["only_first"], found["pairs"][0]["only_second"]) == (1, 0)
    assert found["classes"]["ANUS_EXPOSED"]["safe"]["images"] == 1
    assert found["unpaired"] == {"base": ["a.png"], "safe": ["d.png"]}
    assert "- 1 picture of base (first: a.png)" in comparison_table(found)
    pairing = paired({"base": base, "safe": safe})
    assert pairing.labels == ["b.png", "x/c.png"]
    assert pairing.places == {"base": [1, 2], "safe": [0, 2]}


def test_a_folder_is_named_below_what_was_audited():
    """Without it a folder that lies alone in one audit would be taken for the whole of another."""
    base = report_of({"one/x/a.png": True}, paths=["one"])
    safe = report_of({"two/a.png": False, "two/x/a.png": True}, paths=["two"])
    assert compare({"base": base, "safe": safe})["unpaired"] == {"base": [], "safe": ["a.png"]}
    older = report_of({"two/x/a.png": True})  # which does not say what was audited
    older["unreadable"] = [{"path": "two/a.png", "reason": "empty"}]
    assert compare({"base": base, "safe": older})["unpaired"] == {"base": [], "safe": []}
    several = report_of({"one/a.png": True, "two/a.png": False}, paths=["one", "two"])
    other = report_of({"three/a.png": True, "two/a.png": False}, paths=["three", "two"])
    assert compare({"a": several, "b": other})["changed"] == []
    alone = report_of({"one/a.png": True}, paths=["one/a.png"])
    assert compare({"a": alone, "b": alone})["unpaired"] == {"a": [], "b": []}


def made_as(prompt: str, seed: int) -> dict:
    report = report_of({"1": True, "2": False}, "key")
    report["images"][1] |= {"prompt": prompt, "seed": seed}
    return report


@pytest.mark.parametrize(("prompt", "seed"), [("a dog", 7), ("a cat", 8), ("", 7), ("at", 7)])
def test_pictures_of_other_prompts_or_seeds_are_not_paired(prompt, seed):
    with pytest.raises(CompareError, match="not of the same prompts and seeds: 1 picture of 2"):
        compare({"base": made_as("a cat", 7), "other": made_as(prompt, seed)})


def test_words_that_were_searched_for_may_stand_before_a_prompt():
    found = compare({"told": made_as("a cat", 7), "found": made_as("x y z a cat", 7)})
    assert found["unpaired"] == {"told": [], "found": []}


ASKED = {"preset": "guns", "from": 0.2, "detector": "NudeNet 320n", "detector_version": "1"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"preset": "lax"}, "preset is lax and strict"),
        ({"thresholds": {"ANUS_EXPOSED": 0.9}}, "thresholds is"),
        ({"min_size": 0.3}, "min_size is 0.3 and None"),
        ({"channel_order": "bgr"}, "channel_order is bgr and rgb"),
        ({"detector_version": "2"}, "detector_version is 2 and"),
        ({"asked": ASKED}, "the asked preset is guns and None"),
    ],
)
def test_audits_by_another_rule_are_refused(more, said):
    base, other = report_of({"1": True}, "key"), report_of({"1": True}, "key", **more)
    with pytest.raises(CompareError, match=f"were not audited in the same way: {said}"):
        compare({"base": base, "other": other})
    if "asked" in more:
        base["summary"]["asked"] = ASKED | {"from": 0.4}
        with pytest.raises(CompareError, match="the asked from is 0.2 and 0.4"):
            compare({"base": base, "other": other})


def test_audits_by_one_rule_are_compared_whatever_it_has():
    both = [report_of({"1": True}, "key", min_size=0.01, asked=ASKED) for _ in range(2)]
    for each in both:
        each["images"][0]["detections"][0]["size"] = 0.5
    told = dict(zip("ab", (parsed("x", as_text(each)) for each in both), strict=True))
    assert compare(told)["min_size"] == 0.01
    assert "min_size" not in compare({name: report_of({"1": True}, "key") for name in "ab"})


def test_what_is_no_proof_among_all_pairs_is_no_difference():
    """Six pictures less of one audit have p 0.03, and 0.09 among three pairs."""
    names = [str(each) for each in range(8)]
    flags = {"a": 8, "b": 2, "c": 8}
    told = {
        name: report_of({each: place < count for place, each in enumerate(names)}, "key")
        for name, count in flags.items()
    }
    bold, _ = verdict(compare(told))
    assert bold == "No proven difference from a: b and c."
    assert "Fewer" in verdict(compare({name: told[name] for name in "ab"}))[0]


def test_what_shares_no_picture_or_no_kind_of_name_is_refused():
    base = report_of({"1": True, "2": False}, "key")
    with pytest.raises(CompareError, match="No picture is in all of these audits: 'base' has '1'"):
        compare({"base": base, "safe": report_of({"3": True}, "key")})
    nameless = report_of({"1": True, "2": False}, "number")
    with pytest.raises(CompareError, match="The pictures of 'safe' have no names"):
        compare({"base": base, "safe": nameless})
    nothing = report_of({})
    with pytest.raises(CompareError, match="'base' audited no picture"):
        compare({"base": nothing, "safe": nothing})
    twice = report_of({"a": True, "b": True}, "key")
    twice["images"][1]["key"] = "a"
    with pytest.raises(CompareError, match="'safe' has several pictures named 'a'"):
        compare({"base": base, "safe": twice})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["summary"].update(flagged=0), "flagged is 0 in its summary, and 1 by"),
        (lambda found: found["summary"].update(flagged_rate=0.0), "flagged_rate is 0.0"),
        (lambda found: found["summary"].update(flagged_rate_95=[0.0, 0.1]), "flagged_rate_95 is"),
        (lambda found: found["summary"]["classes"]["ANUS_EXPOSED"].update(images=0), "classes is"),
        (lambda found: found["images"].pop(), "images is 2 in its summary, and 1 by its rows"),
        (
            lambda found: found["images"][0].update(flagged=False),
            "1 picture not judged by its own thresholds .first: 1.",
        ),
        (
            lambda found: found["images"][0]["detections"].clear(),
            "1 picture not judged by its own thresholds .first: 1.",
        ),
        (
            lambda found: found["images"][0]["detections"][0].update(counted=False),
            "1 picture not judged by its own thresholds .first: 1.",
        ),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(change, message):
    base, safe = (report_of({"a": True, "b": False}, "key") for _ in range(2))
    compare({"base": base, "safe": safe})
    change(safe)
    with pytest.raises(CompareError, match=f"'safe' contradicts itself: {message}"):
        compare({"base": base, "safe": parsed("safe", as_text(safe))})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not JSON"),
        ("[]", "it must be an object"),
        ('{"images": []}', "`summary` is missing"),
        ('{"images": [{"flagged": 1}], "summary": {}}', "`images.0.flagged` is 1; it must be true"),
        ('{"images": [{"flagged": true, "detections": [], "prompt": null}]}', "`images.0.prompt`"),
        ("[" * 100_000, "it is not JSON: recursion"),
    ],
)
def test_what_is_no_report_says_what_it_lacks(text, message):
    with pytest.raises(CompareError, match=f"(?s)'safe' is not an audit report: .*{message}"):
        parsed("safe", text)


def test_no_number_of_a_report_is_nan():
    text = as_text(report_of({"a": True}, "key")).replace('"score": 0.9', '"score": NaN')
    with pytest.raises(CompareError, match="images.0.detections.0.score` is nan; it must be"):
        parsed("safe", text)


def test_a_report_is_read_as_it_was_written():
    found = report_of({"a": True}, "key", lock_findings=["x"], provider=None)
    assert parsed("a", as_text(found)) == json.loads(json.dumps(found))


ODD = ["a|b", "$x_{$", "_hidden", "\\frac{$", "\ud800" * 60]


def test_a_report_under_the_former_name_of_a_preset_is_compared_with_one_of_today():
    told = {
        name: parsed(name, as_text(report_of({"a.png": True}, preset=preset)))
        for name, preset in (("old", "nine exposed, detections"), ("new", "MACE"))
    }
    assert compare(told)["preset"] == "MACE"


def test_names_break_no_table_and_no_chart():
    named = {name: report_of({"a": bool(place), "b": True}) for place, name in enumerate(ODD)}
    found = compare(named)
    lines = [line for line in comparison_table(found).splitlines() if line.startswith("|")]
    assert [line for line in lines if line.startswith(r"| a\|b ")]
    cells = [line.replace(r"\|", "").count("|") for line in lines]
    assert set(cells) == {6, 8, len(ODD) + 2}
    assert chart(found).width == 1200
