"""What is shown of an error's class: the pack's name, never the place of its file."""

import builtins
import pickle
import re

import pytest
from modular_safety_lora.audit.detectors.runtime import DetectorError
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.modules.errors import ModuleFileError, SafetyError
from modular_safety_lora.options.errors import SHOWN
from modular_safety_lora.storage.whole import NameTooLong

CLASS = re.compile(r"^class ([A-Z]\w*)\((\w*(?:Error|Exception))\)", re.MULTILINE)
ROOMS = (
    *("audit", "evaluation", "function", "host", "merge", "modules", "nodes", "options"),
    *("storage", "training"),
)


class Deeper(SafetyError):
    """An error of an error."""


@pytest.mark.parametrize("kind", [ModuleFileError, SafetyError, Deeper, DetectorError, NameTooLong])
def test_a_class_is_shown_by_the_packs_name_and_its_own(kind):
    """As `full_type_name` of ComfyUI's execution.py puts them together."""
    assert f"{kind.__module__}.{kind.__qualname__}" == f"{SHOWN}.{kind.__name__}"


@pytest.mark.parametrize("kind", [ModuleFileError, DetectorError, NameTooLong])
def test_a_worker_can_send_it(kind):
    found = pickle.loads(pickle.dumps(kind("what is wrong")))
    assert type(found) is kind and found.args == ("what is wrong",)


def test_every_error_of_the_pack_is_one():
    """None derives from Python's own alone; a name that starts with `_` leaves its file."""
    bare = {
        f"{path.relative_to(PACK).as_posix()}: {name}"
        for room in ROOMS
        for path in (PACK / room).rglob("*.py")
        for name, parent in CLASS.findall(path.read_text(encoding="utf-8"))
        if hasattr(builtins, parent)
    }
    assert bare == {"options/errors.py: PackError"}
