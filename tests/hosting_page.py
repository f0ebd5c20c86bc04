"""What docs/hosting.md gives to copy: settings, commands, nginx's configuration, an image."""

import json
import re

from modular_safety_lora.lab.server import PACK

PAGE = PACK / "docs" / "hosting.md"


def settings_of_the_page() -> dict:
    """The file of settings."""
    page = PAGE.read_text(encoding="utf-8")
    return json.loads(page[page.index("    {\n") : page.index("    }\n") + 6])


def commands_of_the_page() -> list[str]:
    """What is typed, in order."""
    return re.findall(r"^ {4}(python .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def proxy_of_the_page(**instead: str) -> str:
    """nginx's configuration, with some of its texts replaced; each must be there."""
    text = (PAGE.parent / "hosting" / "nginx.conf").read_text(encoding="utf-8")
    for before, after in instead.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def steps_of_the_image() -> list[tuple[str, str]]:
    """(instruction, what it says) of the Dockerfile, in order, with its arguments filled in."""
    text = (PAGE.parent / "hosting" / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    steps = [tuple(line.split(None, 1)) for line in lines if line.strip()]
    given = dict(said.split("=", 1) for what, said in steps if what == "ARG")
    for name, value in given.items():
        steps = [(what, said.replace(f"${name}", value)) for what, said in steps]
    return steps
