"""An embedding's file that is changed between two starts is another model to what was kept."""

import json

import pytest
import torch
from modular_safety_lora.audit.folders.store import StoreError
from modular_safety_lora.commands import audit_prompts, main
from modular_safety_lora.evaluation.again import FILE
from modular_safety_lora.evaluation.run import report_again, run
from modular_safety_lora.function.texts import encoded
from modular_safety_lora.host.named import NOTHING
from modular_safety_lora.host.prefixes import embeddings_in
from modular_safety_lora.lab import assets
from prompt_sets import job
from safetensors.torch import save_file

TEXTS = "a cat", "a cat embedding:mine", "a dog, (embedding:other:1.2)"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a prompt set, and ComfyUI's only folder of embeddings, with two."""
    import folder_paths

    kinds = {".safetensors", ".pt", ".bin"}
    folders = [str(tmp_path / "embeddings")], kinds
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "embeddings", folders)
    written(tmp_path, *TEXTS)
    for name in ("mine", "other"):
        put(tmp_path, name)
    return tmp_path


def written(place, *texts: str) -> None:
    rows = "".join(f'"{text}",64,64\n' for text in texts)
    (place / "set.csv").write_text(f"prompt,width,height\n{rows}", encoding="utf-8")


def put(place, name: str, value: float = 0.0, end: str = "safetensors") -> None:
    file = place / "embeddings" / f"{name}.{end}"
    file.parent.mkdir(exist_ok=True)
    save_file({"clip_l": torch.full((2, 768), value)}, file)


@pytest.fixture
def audit(parts, place):
    """A whole run of the set, and how to start it again."""

    def started(**more) -> dict:
        with embeddings_in(parts[1], place / "embeddings"):
            return run(*parts, job(place / "set.csv", place / "run", **more))

    started()
    return started


def report(place) -> dict:
    return json.loads((place / "run" / "report.json").read_text(encoding="utf-8"))


def changed(place) -> None:
    put(place, "mine", 1.0)


def vanished(place) -> None:
    (place / "embeddings" / "mine.safetensors").unlink()


def added(place) -> None:
    """One of that name that the host finds first."""
    (place / "embeddings" / "mine").write_bytes(b"another")


@pytest.mark.parametrize("change", [changed, vanished, added])
@pytest.mark.parametrize("preset", ["all", "strict"])
def test_a_run_does_not_go_on_with_another_embedding(audit, place, change, preset):
    before = report(place)
    change(place)
    with pytest.raises(StoreError, match="1 row of an audit made with another embedding:mine"):
        audit(preset=preset)
    assert report(place) == before
    put(place, "mine")
    (place / "embeddings" / "mine").unlink(missing_ok=True)
    assert audit()["images"] == 3 and report(place) == before, "the rows are what they were"


def test_an_unchanged_one_goes_on_and_one_that_nothing_names_does_not_count(audit, place):
    before, made = report(place), []
    put(place, "unnamed", 2.0)
    audit(on_picture=lambda done, picture: made.append(done))
    assert made == [3] and report(place) == before
    digests = [row.get("embeddings") for row in before["images"]]
    assert digests[0] is None and [*digests[1]] == ["embedding:mine"]


def test_a_row_that_could_not_be_read_is_made_when_the_file_is_there(parts, place):
    vanished(place)
    asked = job(place / "set.csv", place / "run")
    with embeddings_in(parts[1], place / "embeddings"):
        assert run(*parts, asked)["unreadable"] == 1
        put(place, "mine")
        assert run(*parts, asked)["images"] == 3


def test_a_row_of_an_earlier_version_is_not_known_to_be_of_this_embedding(audit, place):
    import sqlite3

    with sqlite3.connect(place / "run" / "audit.sqlite") as store:
        store.execute("update pictures set data = json_remove(data, '$.embeddings')")
    with pytest.raises(StoreError, match=r"2 rows .* another embedding:\w+ \(not known; now "):
        audit()


def test_a_file_that_is_changed_while_a_run_goes_on_is_told_in_the_row(parts, place):
    def watch(done, picture) -> None:
        if done == 1:
            changed(place)

    with embeddings_in(parts[1], place / "embeddings"):
        summary = run(*parts, job(place / "set.csv", place / "run", on_picture=watch))
    said = "embedding:mine: its file was changed while this run went on"
    assert summary["images"] == 2 and said in summary["not_made"]


def test_one_that_names_nothing_is_a_row_that_says_so_and_the_others_are_made(parts, place):
    written(place, "a cat, embedding:", "a cat", "(embedding:1.2), a dog")
    with embeddings_in(parts[1], place / "embeddings"):
        summary = run(*parts, job(place / "set.csv", place / "run"))
    assert (summary["images"], summary["unreadable"]) == (1, 2)
    assert f"first: 000001, {NOTHING}" in summary["verdict"]


def test_without_an_embedding_nothing_is_said_of_any(parts, place):
    written(place, "a cat")
    asked = job(place / "set.csv", place / "run", loaded={"files": []})
    run(*parts, asked)
    told = json.loads((place / "run" / FILE).read_text(encoding="utf-8"))
    assert told.keys() == {"loaded", "holds"} and told["holds"].keys() == {"model", "untold", "of"}
    assert "embeddings" not in json.dumps(report(place))
    assert report_again(asked)["images"] == 1


def test_it_is_counted_again_without_the_model_until_the_file_changes(
    models, place, monkeypatch, capsys
):
    load, loads = audit_prompts.load_base, []
    monkeypatch.setattr(audit_prompts, "load_base", lambda *_: loads.append(1) or load(*_))
    asked = ["audit-prompts", "--checkpoint", str(models / "checkpoints" / assets.CHECKPOINT)]
    asked += ["--prompts", str(place / "set.csv"), "--output", str(place / "run"), "--steps", "1"]
    assert main([*asked, "--preset", "all"]) == 0 and len(loads) == 1
    assert main([*asked, "--preset", "strict"]) == 0 and len(loads) == 1
    changed(place)
    assert main([*asked, "--preset", "all"]) == 1 and len(loads) == 2
    assert "made with another embedding:mine (" in capsys.readouterr().err
    assert report(place)["summary"]["preset"] == "strict"


def test_what_a_probe_asks_is_encoded_again_with_another_file(parts, place):
    clip = parts[1]
    with embeddings_in(clip, place / "embeddings"):
        first = encoded(clip, [TEXTS[1]])[TEXTS[1]].sha256
        assert encoded(clip, [TEXTS[1]])[TEXTS[1]].sha256 == first
        changed(place)
        assert encoded(clip, [TEXTS[1]])[TEXTS[1]].sha256 != first
        with pytest.raises(ValueError, match="names nothing"):
            encoded(clip, ["a cat, embedding:"])
