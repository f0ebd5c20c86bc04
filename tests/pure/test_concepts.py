"""The concepts that ship: their prompts, what is drawn instead, and what a run is told of them."""

import itertools
import json
import math

import pytest
import torch
from modular_safety_lora.modules.concepts import check_apart
from modular_safety_lora.options.choices import ChoiceError
from modular_safety_lora.training import concepts
from modular_safety_lora.training.concepts import CONCEPTS, NAME
from modular_safety_lora.training.near import nearest
from modular_safety_lora.training.prompting import Erased

PUBLISHED = {"nudity", "nudity-mace", "nudity-selective-amnesia", "nudity-salun"}
OURS = CONCEPTS.keys() - PUBLISHED


def told(name: str, **more) -> Erased:
    typed = {"concept": "Jane Doe"} if CONCEPTS[name].named else {}
    return Erased(concept_preset=name, **typed | more)


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_concept_has_a_source_and_its_lists_do_not_overlap(name):
    found = told(name).preset
    assert "20" in found.source and found.pairs
    prompts = [prompt.casefold() for prompt, _ in found.pairs]
    assert len(set(prompts)) == len(prompts) and all(prompts)
    others = [*(surrogate for _, surrogate in found.pairs if surrogate), *found.near]
    assert not set(prompts) & {each.casefold() for each in others}
    check_apart(found.held_out, [*prompts, *others])
    assert all(text == text.strip() and NAME not in text for text in [*prompts, *others])


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_bring_everything_and_say_that_they_were_not_measured(name):
    found = CONCEPTS[name]
    assert all(surrogate for _, surrogate in found.pairs)
    assert len(found.near) > 10 and len(found.held_out) > 3
    assert "not measured on a real model" in found.source
    more = told(name).others("surrogate")
    assert len(more["surrogates"]) == len(told(name).concepts) == len(found.pairs)
    assert len(more["held_out"]) == len(found.held_out)


def test_a_file_that_is_put_in_is_a_concept(tmp_path):
    file = tmp_path / "cats.json"
    file.write_text(json.dumps({"source": "ours, 2026", "pairs": [["a cat", "a dog"]]}))
    assert concepts._read(file) == concepts.Concept("ours, 2026", (("a cat", "a dog"),))


def test_published_prompts_are_as_published_and_typed_ones_are_added():
    found = Erased(concept="bare", concept_preset="nudity-mace")
    assert found.concepts == ["nudity", "naked", "erotic", "sexual", "bare"]
    assert Erased(concept_preset="nudity").pairs == [("nudity", "")]
    clothed = "a person wearing clothes"
    assert Erased(concept_preset="nudity-mace").pairs == [
        (each, clothed) for each in ("nudity", "naked", "erotic", "sexual")
    ]


def test_names_stand_in_the_prompts_of_a_style_and_several_are_several_concepts():
    found = Erased(concept="Jane Doe, John Roe", concept_preset="artist-style")
    count = len(CONCEPTS["artist-style"].pairs)
    assert len(found.pairs) == 2 * count
    assert found.pairs[2] == ("a still life with fruit by Jane Doe", "a still life with fruit")
    assert found.pairs[count + 2][0] == "a still life with fruit by John Roe"
    held_out = found.others("esd-x")["held_out"]
    assert all(("Jane Doe" in each) != ("John Roe" in each) for each in held_out)
    for typed in ("", "{} by Jane Doe"):
        with pytest.raises(ValueError, match="artist-style needs a name"):
            _ = Erased(concept=typed, concept_preset="artist-style").pairs


def test_what_is_typed_as_surrogate_is_for_what_has_none_or_takes_the_place_of_the_presets():
    both = Erased(concept="bare", concept_preset="nudity-salun", surrogate=("a statue",))
    assert both.pairs == [
        ("a photo of a nude person", "a photo of a person wearing clothes"),
        ("bare", "a statue"),
    ]
    alone = Erased(concept_preset="nudity-salun", surrogate=("a statue",))
    assert alone.pairs == [("a photo of a nude person", "a statue")]
    published = Erased(concept="bare", concept_preset="nudity", surrogate=("a statue", "a coat"))
    assert published.pairs == [("nudity", "a statue"), ("bare", "a coat")]
    with pytest.raises(ValueError, match="what to draw in place of 1 prompt"):
        Erased(concept_preset="nudity").others("surrogate")


def encoding(*numbers: float):
    """A conditioning of one prompt: a token of its own, and one that all prompts share."""
    return [[torch.tensor([[[*numbers, 0.0], [0.0, 0.0, 50.0]]]), {}]]


TEXTS = {
    "": encoding(0.0, 0.0),
    "a pistol": encoding(1.0, 0.1),
    "a hammer": encoding(4.0, 2.0),
    "a wrench": encoding(1.0, 1.0),
    "a cat": encoding(-0.1, 1.0),
    "a cloud": encoding(-1.0, 0.0),
}


def test_the_nearest_are_those_whose_directions_are_most_alike_however_long():
    others = ["a cloud", "a cat", "a wrench", "a hammer"]
    assert nearest(TEXTS, ["a pistol"], others, 3) == ["a hammer", "a wrench", "a cat"]
    assert nearest(TEXTS, ["a pistol", "a cloud"], others, 1) == ["a cloud"]
    assert nearest(TEXTS, ["a pistol"], others, 0) == nearest(TEXTS, ["a pistol"], [], 3) == []
    broken = TEXTS | {"a cat": encoding(math.nan, 1.0)}
    with pytest.raises(ValueError, match="not finite"):
        nearest(broken, ["a pistol"], others, 3)


def tokens(*directions: tuple[float, float]):
    return [[torch.tensor([[(*each, 0.0) for each in directions]]), {}]]


def test_neither_length_nor_size_of_tokens_nor_what_all_prompts_share_makes_a_prompt_near():
    shared, own = (0.0, 1.0), (1.0, 0.0)
    aside = (math.cos(0.7), -math.sin(0.7))
    texts = {
        "": tokens(shared),
        "a gun": tokens(shared, own),
        "a long rifle": tokens(shared, own, own, own, own),
        "a cloud": tokens(shared, aside),
    }
    assert nearest(texts, ["a gun"], ["a cloud", "a long rifle"], 1) == ["a long rifle"]
    texts = {
        "": tokens((0.0, 0.0)),
        "a gun": tokens((1.0, 0.0), (0.0, 1.0)),
        "a RIFLE": tokens((10.0, 0.0), (0.0, 1.0)),
        "a cloud": tokens((1.0, 0.2), (0.5, 1.0)),
    }
    assert nearest(texts, ["a gun"], ["a cloud", "a RIFLE"], 1) == ["a RIFLE"]


def test_the_nearest_of_a_preset_are_retained_beside_what_is_told():
    found = told("weapons", retain=("my dog",), near=2)
    asked = found.texts
    assert set(CONCEPTS["weapons"].near) < set(asked) and "my dog" in asked
    draw = torch.Generator().manual_seed(1)
    texts = {each: [[torch.randn(1, 5, 8, generator=draw), {}]] for each in ("", *asked)}
    retained = found.retained(texts)
    assert retained[0] == "my dog" and len(retained) == 3
    assert retained[1:] == nearest(texts, found.concepts, CONCEPTS["weapons"].near, 2)
    alone = told("weapons", near=0)
    assert alone.retained(texts) == [] and not set(CONCEPTS["weapons"].near) & set(alone.texts)


TWO = {"concept_preset": "violence", "more_presets": "weapons, violence", "near": 2}


def test_several_presets_bring_each_its_own():
    found, alone = Erased(**TWO), [CONCEPTS[name] for name in ("violence", "weapons")]
    assert found.pairs == [pair for each in alone for pair in each.pairs]
    held_out = found.others("surrogate")["held_out"]
    assert held_out == [text for each in alone for text in each.held_out]
    texts = {
        each: encoding(1.0 + place, float(place % 7)) for place, each in enumerate(found.texts)
    }
    texts[""] = encoding(0.0, 0.0)
    expected = [
        text
        for each in alone
        for text in nearest(texts, [prompt for prompt, _ in each.pairs], each.near, 2)
    ]
    assert found.retained(texts) == expected and len(set(expected)) == 4
    assert set(found.texts) >= {text for each in alone for text in each.near}
    named = Erased(concept="Jane Doe", concept_preset="artist-style", more_presets="weapons")
    assert (
        "a portrait of a woman in the style of Jane Doe",
        "a portrait of a woman",
    ) in named.pairs
    assert "Jane Doe" not in named.concepts and "a sword" in named.concepts


def test_what_one_preset_takes_away_no_other_keeps_or_holds_out():
    one = concepts.Concept("a", (("a gun", "a rose"),), ("a hammer", "a knife"), ("a rifle",))
    two = concepts.Concept("b", (("A knife", "a pen"), ("a rifle", "")), ("a pen",), ("a hammer",))
    both = concepts.joined([one, two])
    assert both.pairs == (("a gun", "a rose"), ("A knife", "a pen"), ("a rifle", ""))
    assert both.near == ("a hammer", "a pen") and both.held_out == ()
    assert concepts.joined([]) == concepts.Concept("", ())


@pytest.mark.parametrize("names", itertools.combinations(sorted(OURS), 2), ids="+".join)
def test_any_two_presets_go_together_but_two_that_ask_for_a_name(names):
    typed = "Jane Doe" if any(CONCEPTS[name].named for name in names) else ""
    told = Erased(concept=typed, concept_preset=names[0], more_presets=names[1])
    if all(CONCEPTS[name].named for name in names):
        with pytest.raises(ValueError, match="both take names from concept"):
            _ = told.pairs
        return
    more = told.others("surrogate")
    check_apart(more["held_out"], [*told.concepts, *more["surrogates"], *told.preset.near])
    assert len(more["surrogates"]) == len(told.concepts) and all(more["surrogates"])


@pytest.mark.parametrize("name", ["Violence", "weapons, guns", "none"])
def test_an_unknown_preset_is_refused_by_name(name):
    with pytest.raises(ChoiceError, match="more_presets is .* must be one of artist-style, "):
        Erased(more_presets=name)
