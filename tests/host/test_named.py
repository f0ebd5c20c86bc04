"""Which embeddings a prompt names, as ComfyUI's own tokenizer finds them, and their files."""

import pytest
import small_clips
import torch
from modular_safety_lora.host.named import NOTHING, check_names, digests_of, named_in
from modular_safety_lora.host.prefixes import (
    embeddings_in,
    encoders_of,
    faults_of,
    folders_of,
    vocabulary,
)
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def clip():
    return small_clips.clip(*small_clips.SHAPES["SD15"][:3])


def put(clip, folder, name: str, value: float = 0.0) -> None:
    (encoder,) = encoders_of(clip).values()
    tensors = {"clip_l": torch.full((2, vocabulary(encoder).shape[1]), value)}
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"{name}.safetensors")


def read_by_host(clip, text: str) -> int | str:
    """How many embedded tokens the host reads in a text; how it breaks off where it does."""
    try:
        [[*tokens]] = clip.tokenize(text).values()
    except IndexError as error:
        return str(error)
    return sum(torch.is_tensor(token) for part in tokens for token, _ in part)


BROKEN = "list index out of range"
BARE = {  # as the host takes them
    "a cat, embedding:": BROKEN,
    "embedding:": BROKEN,
    "embedding: ": BROKEN,
    "(embedding:)": BROKEN,
    "a (cat, embedding::1.2)": BROKEN,
    "embedding:(mine:1.2)": BROKEN,
    "embedding: embedding:mine": BROKEN,
    "(embedding:1.2) cat": 0,
    "embedding:, a cat": 0,
    "embedding:<mine>": 0,
    "embedding:[mine], embedding:mine": 2,
}


@pytest.mark.parametrize("text", BARE)
def test_an_embedding_word_that_names_nothing_is_told(clip, tmp_path, text):
    put(clip, tmp_path, "mine")
    with embeddings_in(clip, tmp_path):
        assert read_by_host(clip, text) == BARE[text]
        assert faults_of(clip, text) == [NOTHING]
    with pytest.raises(ValueError, match="embedding: names nothing; write a name behind it"):
        check_names(text)


@pytest.mark.parametrize(
    "text",
    [
        "embedding: mine",
        "a cat, embedding:mine",
        "(embedding:mine:1.2), a cat",
        "((a cat embedding:mine)), [old]",
        "embedding:mine, a cat",
        "embedding:mine[0.5] a cat",
        "embedding:mine<x>",
        "a cat\nembedding:mine\n",
        "embedding:sub/mine",
        "embedding:mine.safetensors",
        "embedding:./mine",
    ],
)
def test_what_the_host_reads_is_named_and_its_file_is_found(clip, tmp_path, text):
    put(clip, tmp_path, "sub/mine" if "sub/" in text else "mine")
    with embeddings_in(clip, tmp_path):
        assert read_by_host(clip, text) == 2 and faults_of(clip, text) == []
        [found] = digests_of([text, "a cat"], folders_of(clip)).values()
        assert len(found) == 1
        put(clip, tmp_path, "sub/mine" if "sub/" in text else "mine", 1.0)
        assert digests_of([text], folders_of(clip))[text] != found
    assert digests_of([text], folders_of(clip)) == {text: {}}


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("embedding:mine<embedding:mine>", "<embedding:mine>"),
        ("embedding:mine a,embedding:mine", "a,embedding:mine"),
        ("embedding:mine,embedding:mine", "embedding:mine,embedding:mine"),
        ("embedding:../mine", "embedding:../mine"),
        ("Embedding:mine embedding:Mine2", "embedding:Mine2"),
    ],
)
def test_what_the_host_spells_beside_one_that_it_reads_is_told(clip, tmp_path, text, lost):
    put(clip, tmp_path / "own", "mine")
    put(clip, tmp_path, "mine")
    with embeddings_in(clip, tmp_path / "own"):
        assert read_by_host(clip, text) == 2 * text.startswith("embedding:mine") * (lost != text)
        assert faults_of(clip, text) == [f"ComfyUI can't read {lost}"]


def test_a_name_of_two_files_is_told_for_the_host_takes_either(clip, tmp_path):
    for place in ("one/mine", "two/mine"):
        put(clip, tmp_path, place)
    with embeddings_in(clip, tmp_path):
        assert faults_of(clip, "embedding:mine") == [], "the same in both"
        put(clip, tmp_path, "two/mine", 1.0)
        said = "embedding:mine names different files; rename all but one"
        assert faults_of(clip, "a cat, embedding:mine") == [said]


def test_an_encoder_that_takes_no_weights_spells_what_stands_in_brackets(
    clip, tmp_path, monkeypatch
):
    """As those of Qwen-Image and Z-Image do."""
    put(clip, tmp_path, "mine")
    monkeypatch.setattr(clip.tokenizer.clip_l, "disable_weights", True)
    with embeddings_in(clip, tmp_path):
        assert faults_of(clip, "a cat embedding:mine") == []
        said = ["ComfyUI can't read all of its embeddings"]
        assert faults_of(clip, "(embedding:mine:1.2) a cat") == said


def test_a_text_without_the_word_names_nothing_and_has_no_fault():
    assert named_in("an embedding, of words: (cat:1.2)") == ([], False)
    check_names("an embedding")
