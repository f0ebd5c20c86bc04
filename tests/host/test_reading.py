"""A node's page is in the language in which its user reads ComfyUI."""

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import folder_paths
import pytest
import requests
from aiohttp import web
from comfy.cli_args import args
from comfy_execution.utils import CurrentNodeContext
from gated import housed
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.nodes import users
from modular_safety_lora.nodes.compare_audits import CompareAudits
from modular_safety_lora.nodes.reading import LOCALE, SETTINGS, by_user, language_of
from modular_safety_lora.options.language import language, spoken
from pages import rows, summary_of
from server import PromptServer

WRITERS = {
    "compare_audits": "compared_page",
    "measure_quality": "measure",
    "prompt_audit": "run",
    "report_safety": "report",
    "search_prompts": "run",
}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A ComfyUI of its own that watches who sends prompts; of several users once it is asked."""
    monkeypatch.setattr(users, "_languages", type(users._languages)())
    with housed(tmp_path, lambda _: users.watch_users(), held=False) as house:
        yield house


def choose(value: object, user: str = "default") -> None:
    folder = Path(folder_paths.get_user_directory(), user)
    folder.mkdir(exist_ok=True)
    text = value if isinstance(value, bytes) else json.dumps({LOCALE: value}).encode()
    (folder / SETTINGS).write_bytes(text)


def ask(house, **headers: str) -> None:
    """Send a prompt as a browser does; that it holds nothing is answered after it was seen."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    assert (
        requests.post(f"{house.url}/prompt", json={}, headers=told, timeout=30).status_code == 400
    )


def test_the_setting_of_the_one_user_counts(house):
    for value in ("de", "zh-TW"):
        choose(value)
        assert language_of(None) == value
    for value in ("ar", "../de", None, ["de"], b"{", b"[]", b"\xff"):
        choose(value)
        assert language_of(None) == "en", value


def test_without_a_setting_the_browser_is_asked_as_the_frontend_does(house):
    assert language_of(None) == "en"
    ask(house, Accept_Language="de-AT,de;q=0.9")
    assert language_of(None) == "de"
    house.get("/prompt", {"Accept-Language": "ja"})
    ask(house)
    assert language_of(None) == "de", "neither another page nor a script says it"
    choose("fr")
    assert language_of(None) == "fr"


def test_every_user_has_a_language(house, monkeypatch):
    monkeypatch.setattr(args, "multi_user", True)
    monkeypatch.setattr(house.server.user_manager, "users", {"anna": "a", "eve": "e", "bob": "b"})
    choose("de", "anna")
    choose("ja")
    ask(house, comfy_user="eve", Accept_Language="ko")
    assert [language_of(name) for name in ("anna", "eve", "bob", None)] == ["de", "ko", "en", "ja"]
    choose("fr", "nobody")
    assert language_of("nobody") == "en" == language_of("../user/anna")
    monkeypatch.setattr(users, "_users", {"1": "anna"})
    with CurrentNodeContext("1", "9"), by_user(), spoken():
        assert language() == "de"
    assert language() == "en"


@pytest.mark.parametrize("several", [False, True])
def test_to_watch_twice_is_to_watch_once(several, monkeypatch):
    monkeypatch.setattr(args, "multi_user", several)
    app, handlers = web.Application(), []
    server = SimpleNamespace(
        app=app, on_prompt_handlers=handlers, add_on_prompt_handler=handlers.append
    )
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    ended = users.watch_users()
    for _ in range(2):
        users.watch_users()()
        assert (len(app.middlewares), len(handlers)) == (1, several), "the first still watches"
    ended()
    assert not app.middlewares and not handlers


def test_a_node_writes_its_page_in_the_language_and_its_table_in_english(house):
    choose("de")
    told = {"unreadable": [], "summary": summary_of(rows((1, 1))), "images": rows((1, 1))}
    both = {f"report{place}": json.dumps(told) for place in (1, 2)}
    table = CompareAudits.execute(both).args[2]
    page = Path(table.rpartition("Page: ")[2]).read_text(encoding="utf-8")
    assert '<html lang="de">' in page and "Kein nachgewiesener Unterschied zu" in page
    assert "No proven difference" in table


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    found = [each for each in ast.walk(tree) if isinstance(each, ast.Call)]
    return [each for each in found if ast.unparse(each.func) == name]


@pytest.mark.parametrize(("node", "writer"), WRITERS.items())
def test_every_node_that_writes_a_page_asks_who_reads_it(node, writer):
    tree = ast.parse((PACK / "nodes" / f"{node}.py").read_text(encoding="utf-8"))
    blocks = [each for each in ast.walk(tree) if isinstance(each, ast.With)]
    asked = [each for each in blocks if ast.unparse(each.items[0]) == "by_user()"]
    within = [call for block in asked for call in calls(block, writer)]
    assert within and len(within) == len(calls(tree, writer))
