"""What other runs keep between two starts: a search, and when a node runs again."""

import folder_paths
import pytest
from modular_safety_lora.evaluation.prompt_set import Prompt
from modular_safety_lora.nodes.embeddings import embeddings_state
from modular_safety_lora.searching.kept import Kept
from modular_safety_lora.searching.search import Found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    kinds = folder_paths.folder_names_and_paths
    monkeypatch.setitem(kinds, "embeddings", ([str(tmp_path)], {".pt"}))
    return tmp_path


def test_a_node_runs_again_when_an_embedding_changes_and_its_prompts_name_one(folder):
    before = embeddings_state("a cat, embedding:mine")
    (folder / "mine.pt").write_bytes(b"1")
    after = embeddings_state("a cat, embedding:mine")
    assert before and before != after != embeddings_state({"prompts": "a cat"}) == ""


def test_what_was_found_for_a_prompt_with_another_embedding_is_searched_again(tmp_path):
    prompt, plain = (
        Prompt(key, text, 1, 7.0, 64, 64)
        for key, text in (("a", "embedding:mine a cat"), ("b", "a cat"))
    )
    named = {prompt.text: {"embedding:mine": "1" * 64}}
    found = Found({}, [], [1.0], True)
    kept = Kept(tmp_path, {}, named)
    for each in (prompt, plain):
        kept.add(each, found)
    again = Kept(tmp_path, {}, named)
    assert prompt in again and plain in again
    other = Kept(tmp_path, {}, {prompt.text: {"embedding:mine": "2" * 64}})
    assert prompt not in other and plain in other
