"""A folder audit lists links and folders that can't be followed, with the reason, and goes on."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from modular_safety_lora.audit.folders.files import walk
from modular_safety_lora.audit.pictures import Unreadable, open_picture
from modular_safety_lora.commands import main
from PIL import Image


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@contextmanager
def without_privileges():
    """As a user that is not root, whom permissions bind."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_link_to_itself_is_listed_and_the_rest_is_audited(tmp_path):
    place = tmp_path / "pictures"
    picture(place / "a.png")
    picture(place / "z" / "b.png")
    (place / "loop").symlink_to("loop")
    (place / "to.png").symlink_to("fro.png")
    (place / "fro.png").symlink_to("to.png")
    assert main(["audit", str(place), "--output", str(tmp_path / "r.json"), "--workers", "1"]) == 0
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [Path(each["path"]).name for each in report["images"]] == ["a.png", "b.png"]
    reasons = {Path(each["path"]).name: each["reason"] for each in report["unreadable"]}
    assert set(reasons) == {"loop", "to.png", "fro.png"}
    assert all("symbolic links" in reason for reason in reasons.values())


def test_a_folder_that_may_not_be_read_is_listed_and_the_rest_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    for name in ("a.png", "listed/b.png", "secret/c.png", "z/d.png"):
        picture(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "secret").chmod(0o311)  # may be entered, not listed
    (tmp_path / "pictures" / "listed").chmod(0o444)  # may be listed, not entered
    with without_privileges():
        found = [path for path, _ in walk([Path("pictures")])]
        for path in ("pictures/secret", "pictures/listed/b.png"):
            with pytest.raises(Unreadable, match="PermissionError: .*Permission denied"):
                open_picture(Path(path))
    assert found == [
        "pictures/a.png",
        "pictures/listed/b.png",
        "pictures/secret",
        "pictures/z/d.png",
    ]
    with without_privileges():
        again = dict(walk([Path("pictures/secret"), Path("pictures/z")]))
    assert list(again) == ["pictures/secret", "pictures/z/d.png"], (
        "and so is one that was asked for"
    )


def test_a_folder_that_vanishes_on_the_way_is_listed(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b" / "c.png")
    found = walk([tmp_path])
    first = next(found)[0]
    shutil.rmtree(tmp_path / "b")
    assert [Path(path).name for path in (first, *(path for path, _ in found))] == ["a.png", "b"]
    with pytest.raises(Unreadable, match="FileNotFoundError"):
        open_picture(tmp_path / "b")
