"""Pages speak the language of who reads them: all that they say is in the catalogue."""

import re
import string
from gettext import c2py
from html.parser import HTMLParser

import pages
import pytest
from jinja2 import Environment, nodes
from modular_safety_lora.audit.report import as_text
from modular_safety_lora.commands import VERBS, main
from modular_safety_lora.lab import catalogue, languages, page_words
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.options import language
from modular_safety_lora.options.language import Speech, nearest, read_in, say, spoken
from modular_safety_lora.options.words import amount

TEMPLATES = sorted(
    path.relative_to(PACK).as_posix()
    for room in ("audit", "reporting", "experiment", "evaluation")
    for path in (PACK / room).rglob("*.j2")
)
TEXTS = list(dict.fromkeys(text for text, _ in page_words.texts(PACK)))
CATALOGUES = languages.catalogues(PACK)
# what stands on the test's pages and is the same in every language: names, numbers with a unit
SAME = {
    *(
        "strict",
        "guns",
        "gun",
        "CMMD",
        "out",
        "of",
        "memory",
        "OSError",
        "esd",
        "cross",
        "attention",
    ),
    *re.findall(
        r"[A-Za-z]+", " ".join([pages.CHECKPOINT, pages.SAFETY, pages.STYLE, *pages.PROMPTS])
    ),
}


def marked(text: str) -> str:
    return f"⟦{text}⟧"


def all_marked() -> Speech:
    """A language in which every text of the catalogue stands between brackets."""
    texts = {
        text if isinstance(text, str) else text[0]: (
            marked(text) if isinstance(text, str) else [*map(marked, text)]
        )
        for text in TEXTS
    }
    return Speech("xx", texts)


class Visible(HTMLParser):
    """The texts of a page that a person reads, but those of charts and settings."""

    def __init__(self, html: str):
        super().__init__()
        self.within: list[str] = []
        self.found: list[str] = [""]  # all that is no attribute
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag in ("style", "script", "svg", "pre"):
            self.within.append(tag)
        self.found[0] += " "
        self.found += [value or "" for name, value in attrs if name in ("title", "alt")]

    def handle_endtag(self, tag):
        if self.within and self.within[-1] == tag:
            self.within.pop()

    def handle_data(self, data):
        if not self.within:
            self.found[0] += data


def unsaid(html: str) -> set[str]:
    """The words of a page that stand in no brackets, without those of its data."""
    found = set()
    for text in Visible(html).found:
        while "⟦" in text:
            text, count = re.subn("⟦[^⟦⟧]*⟧", " ", text)
            assert count, text
        found |= set(re.findall(r"[A-Za-z]{2,}", re.sub(r"[A-Z]+_[A-Z_]+|[0-9a-f]{12}", "", text)))
    return found - SAME


@pytest.fixture(scope="module")
def every(tmp_path_factory) -> dict[str, str]:
    """Every page with all that it says between brackets."""
    folder, before = tmp_path_factory.mktemp("pages"), language.speech_of
    language.speech_of = lambda name: all_marked()
    try:
        return pages.every(folder)
    finally:
        language.speech_of = before


@pytest.mark.parametrize(
    "name",
    ["audit", "files", "comparison", "flips", "report", "fine_tuning", "quality", "few"],
)
def test_a_page_says_nothing_that_is_not_in_the_catalogue(every, name):
    assert '<html lang="xx">' in every[name]
    assert unsaid(every[name]) == set(), "say it: `say`, `say_many` or `phrase`"


@pytest.mark.parametrize("file", TEMPLATES)
def test_a_template_has_no_text_of_its_own(file):
    source = (PACK / file).read_text(encoding="utf-8")
    parts = Environment().parse(source).find_all(nodes.TemplateData)
    text = "\0".join(part.data for part in parts)
    if file.endswith(".js.j2"):
        own = [each for each in re.findall(r'"([\w; ]+ [\w; ]+)"', text) if each != "use strict"]
    else:
        text = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
        own = re.findall(r"[A-Za-z]{2,}", re.sub(r"<[^>]*>", "", text))
    assert own == [], "say it: {{ say(...) }}"


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("code", CATALOGUES)
def test_a_translation_has_the_places_of_its_text(code):
    for text in TEXTS:
        message = CATALOGUES[code].get(text, page_words.CONTEXT)
        for form in catalogue.forms(message) if catalogue.is_usable(message) else ():
            assert places(form) == places(catalogue.english(message)), form


def test_a_number_chooses_the_form_and_english_fills_what_is_missing():
    russian = "n % 10 == 1 && n % 100 != 11 ? 0 : n % 10 >= 2 && n % 10 <= 4 ? 1 : 2"
    forms = ["{count} картинка", "{count} картинки", "{count} картинок"]
    with spoken(Speech("ru", {"{count} picture": forms, "and": "и"}, c2py(russian))):
        told = [amount(count, "picture") for count in (1, 2, 5, 21)]
        assert told == ["1 картинка", "2 картинки", "5 картинок", "21 картинка"]
        assert amount(5, "prompt") == "5 prompts" and say("and") == "и"
    assert amount(2, "picture") == "2 pictures" and say("and") == "and"


@pytest.mark.parametrize(
    ("name", "code"),
    {
        "de_DE.UTF-8": "de", "de": "de", "pt_BR": "pt-BR", "pt_PT@euro": "pt-BR", "zh_TW": "zh-TW",
        "zh_CN.GB18030": "zh", "C.UTF-8": "en", "": "en", "xx:de": "de", "../de": "en",
        "de-AT,de;q=0.9,en;q=0.8": "de", "ar,*;q=0.5": "en", "en-US,de;q=0.5": "en",
        "zh-HK,zh": "zh-TW", "zh_MO.UTF-8": "zh-TW", "zh-hant-tw": "zh-TW", "zh-Hans-HK": "zh",
    }.items(),
)  # fmt: skip
def test_the_nearest_language_is_taken(name, code):
    assert nearest(name) == code


def test_a_language_without_pages_is_english():
    assert language.speech_of("../de") is language.speech_of("en")


@pytest.mark.parametrize("text", ["", "<<<<<<< HEAD", "{}", '{"texts": {}, "plural": "n >"}'])
def test_a_file_of_a_language_that_cannot_be_read_costs_no_page(text, tmp_path, monkeypatch):
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / language.FILE).write_text(text)
    monkeypatch.setattr(language, "FOLDER", tmp_path)
    monkeypatch.setattr(language, "languages", lambda: ("de", "en"))  # not kept for other tests
    assert language.speech_of.__wrapped__("de") is language.speech_of("en")


def test_a_verb_writes_its_page_in_the_language_and_all_else_in_english(tmp_path, capsys):
    for name, flags in (("a", (1, 1)), ("b", (0, 1))):
        some = pages.rows(flags)
        told = {"images": some, "unreadable": [], "summary": pages.summary_of(some)}
        (tmp_path / f"{name}.json").write_text(as_text(told), encoding="utf-8")
    named = [f"{name}={tmp_path / name}.json" for name in "ab"]

    def made(code: str) -> tuple[str, ...]:
        assert main(["compare", *named, "--output", str(tmp_path), "--language", code]) == 0
        names = "comparison.html", "comparison.json", "table.md"
        printed = capsys.readouterr().out
        return *((tmp_path / name).read_text(encoding="utf-8") for name in names), printed

    page, *rest = made("de")
    assert '<html lang="de">' in page and "Kein nachgewiesener Unterschied zu a: b." in page
    english, *same = made("en")
    assert rest == same and "No proven difference from a: b." in english
    with pytest.raises(SystemExit):
        made("xx")
    assert "invalid choice: 'xx'" in capsys.readouterr().err


WRITERS = (
    "audit",
    "audit-prompts",
    "search-prompts",
    "compare",
    "report",
    "quality",
    "fine-tuning",
)


@pytest.mark.parametrize("verb", WRITERS)
def test_every_verb_that_writes_a_page_has_the_option(verb, capsys):
    assert verb in VERBS
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "--language" in capsys.readouterr().out


def test_a_run_in_a_language_leaves_no_trace():
    with read_in("de"), spoken():
        assert language.language() == "de" and say("Pictures") == "Bilder"
    assert language.language() == "en" and say("Pictures") == "Pictures"


def test_two_models_of_one_name_are_both_shown(tmp_path, monkeypatch):
    english = pages.safety_report(tmp_path / "en").count("<figure")
    same = Speech("xx", {"base": "model", "safe": "model"})
    monkeypatch.setattr(language, "speech_of", lambda _: same)
    assert pages.safety_report(tmp_path / "xx").count("<figure") == english > 2


SOURCE = """
SHOWN = phrase("a" " b")
ROW = Counted("key", "head", share)
def f():
    say_many("{count} one", "{count} many", n)
    return say(SHOWN), amount(2, "box", "boxes"), amount(2, noun)
from ..options.language import say
"""


def test_texts_are_found_where_they_stand():
    boxes = ("{count} box", "{count} boxes")
    assert [*page_words.in_code(SOURCE)] == ["a b", "head", ("{count} one", "{count} many"), boxes]
    template = (
        '{{ say("one {x}", x=say("two")) }}{% if say(a) %}{{ say_many("b", "c", 2) }}{% endif %}'
    )
    assert sorted(map(str, page_words.in_template(template))) == ["('b', 'c')", "one {x}", "two"]
    keys = [each if isinstance(each, str) else each[0] for each in TEXTS]
    assert len(set(keys)) == len(keys), "a text has one form, or one for each number"
