"""ComfyUI-Manager's own command line installs the pack from a git address, updates and removes it.

Offline: the address is a repository on this machine.
"""

import pytest
from modular_safety_lora.lab import assets, manager_install, shipped
from modular_safety_lora.lab.manager_install import manager
from modular_safety_lora.lab.plans import MERGE
from modular_safety_lora.lab.server import PACK_NAME, Server, place_models
from prompting import run


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A git repository with this pack, as it is in this folder."""
    folder = tmp_path_factory.mktemp("origin")
    manager_install.origin(folder)
    return folder / PACK_NAME


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A ComfyUI of its own without any node pack."""
    folder = tmp_path_factory.mktemp("managed")
    manager_install.bare(folder)
    return folder


def test_install_run_update_and_removal(origin, bare, models):
    pack = bare / "custom_nodes" / PACK_NAME
    said = manager(bare, "install", f"file://localhost{origin}")
    assert "Installation was successful" in said and (pack / "__init__.py").is_file()

    place_models(models, bare)
    with Server(bare, install=False) as server:
        log = server.log.read_text(errors="replace").split("To see the GUI go to")[0]
        assert "IMPORT FAILED" not in log
        name = MERGE
        assert name in server.get("/workflow_templates").json()[PACK_NAME]
        outcome = run(server, shipped.prompt(name))
    assert server.process.poll() is not None, "it is stopped"
    assert outcome.error is None, outcome.error
    texts = [shown["text"][0] for shown in outcome.outputs.values() if "text" in shown]
    assert any("The safety LoRA holds" in text for text in texts)

    project = origin / "pyproject.toml"
    project.write_text(project.read_text(encoding="utf-8") + "# newer\n", encoding="utf-8")
    manager_install.git(origin, "commit", "--all", "--message", "Newer")
    assert "UPDATED" in manager(bare, "update", PACK_NAME)
    assert (pack / "pyproject.toml").read_text(encoding="utf-8").endswith("# newer\n")

    assert "UNINSTALLED" in manager(bare, "uninstall", PACK_NAME)
    assert not pack.exists()
    assert (bare / "models" / "loras" / assets.SAFETY).is_file(), "what a user made stays"
