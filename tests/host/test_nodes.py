"""The nodes as ComfyUI sees them: ids, sockets, words, and files that change on disk."""

import asyncio
import re

import folder_paths
import modular_safety_lora
import pytest
from contract import CONTRACT, OPEN
from modular_safety_lora.lab import assets, generate
from modular_safety_lora.lab.server import PACK
from modular_safety_lora.modules.files import ModuleFileError
from modular_safety_lora.nodes.load import LoadSafetyLora, LoadTaskLora, lora_names
from modular_safety_lora.nodes.seal import SealSafetyLora
from safetensors.torch import load_file, save_file
from widget_order import ORDER

SILENT = ("MSL_ExampleModel", "MSL_LoadTaskLora")  # nodes that show nothing of what they give


@pytest.fixture(scope="module")
def schemas() -> dict:
    async def nodes():
        return await (await modular_safety_lora.comfy_entrypoint()).get_node_list()

    found = [node.GET_SCHEMA() for node in asyncio.run(nodes())]  # the host's own validation
    return {schema.node_id: schema for schema in found}


@pytest.fixture
def loras(models, tmp_path):
    """A loras folder of the test's own, known to ComfyUI."""
    before = folder_paths.folder_names_and_paths["loras"]
    folder_paths.folder_names_and_paths["loras"] = ([str(tmp_path)], before[1])
    folder_paths.filename_list_cache.pop("loras", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("loras", None)  # or it looks into this folder again
    folder_paths.folder_names_and_paths["loras"] = before


def test_ids_names_sockets_and_defaults_are_the_contract(schemas):
    assert schemas.keys() == CONTRACT.keys()
    for node_id, (title, inputs, outputs) in CONTRACT.items():
        schema = schemas[node_id]
        assert schema.display_name == title and schema.category == "safety/modular LoRA"
        found = {each.id: each.get_io_type() for each in schema.inputs}
        assert found == inputs or (node_id in OPEN and inputs.items() <= found.items())
        assert [(each.display_name, each.get_io_type()) for each in schema.outputs] == outputs
        is_shown = schema.is_output_node or schema.has_intermediate_output  # also what was kept
        assert is_shown == (node_id not in SILENT), f"{node_id}: what it gives is not shown"
        names = [each.id for each in schema.inputs]
        assert names == ORDER[node_id].split(), "a saved workflow's widgets would move"
    defaults = {
        (schema.node_id, each.id): getattr(each, "default", None)
        for schema in schemas.values()
        for each in schema.inputs
    }
    assert defaults[("MSL_ModularMerge", "foreign_changes")] == "refuse"
    assert defaults[("MSL_LoadSafetyLora", "sha256")] == ""
    assert defaults[("MSL_TrainTaskLora", "anchor_lambda")] == 3.0
    assert (
        defaults[("MSL_LoadTaskLora", "strength_model")]
        == defaults[("MSL_LoadTaskLora", "strength_clip")]
        == 1.0
    )
    assert not any("strength" in each.id for each in schemas["MSL_LoadSafetyLora"].inputs)


def test_everything_has_words(schemas):
    for schema in schemas.values():
        assert schema.description and schema.search_aliases, schema.node_id
        for each in [*schema.inputs, *schema.outputs]:
            assert each.tooltip and each.tooltip[0].isupper() and each.tooltip.endswith("."), (
                schema.node_id,
                each.tooltip,
            )
        page = (PACK / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n")
        for each in schema.inputs:
            assert re.search(rf"^- \*\*`{each.id}`\*\*", page, re.M), (
                f"{schema.node_id}: the help page lacks {each.id}"
            )


@pytest.mark.parametrize("file", [path.relative_to(PACK).as_posix() for path in generate.made()])
def test_what_is_made_from_the_nodes_is_as_they_are_now(file):
    """`python dev.py generate` writes it.

    The API form of the workflows is compared in the browser tier.
    """
    assert (PACK / file).read_text(encoding="utf-8") == generate.made()[PACK / file], (
        "run `python dev.py generate`"
    )


def test_loaders_append_and_refuse_each_others_files(loras, models):
    for file in (models / "loras").iterdir():
        (loras / file.name).write_bytes(file.read_bytes())
    safety, digest = LoadSafetyLora.execute(assets.SAFETY).args
    assert (
        LoadSafetyLora.execute(assets.SAFETY, digest, safety).args[0][1].sha256 == digest
        and len(safety) == 1
    )
    tasks = LoadTaskLora.execute(assets.STYLE, strength_model=0.5, strength_clip=0.25).args[0]
    both = LoadTaskLora.execute(assets.SUBJECT, tasks=tasks).args[0]
    found = [(task.module.name, task.strength_model) for task in both]
    assert found == [(assets.STYLE, 0.5), (assets.SUBJECT, 1.0)]
    for load, wrong in (
        (LoadSafetyLora, assets.STYLE),
        (LoadTaskLora, assets.SAFETY),
        (LoadTaskLora, "../x.safetensors"),
    ):
        with pytest.raises(ModuleFileError, match=re.escape(wrong)):
            load.execute(wrong)


def test_a_loader_lists_what_it_takes_and_refuses_the_rest_before_a_run(loras, models):
    for file in (models / "loras").iterdir():
        (loras / file.name).write_bytes(file.read_bytes())
    save_file(load_file(loras / assets.STYLE), loras / "plain.safetensors")
    (loras / "broken.safetensors").write_bytes(b"PK\x03\x04 a pickle")
    safety, task = LoadSafetyLora.validate_inputs, LoadTaskLora.validate_inputs
    listed = lora_names("safety")
    assert assets.SAFETY in listed and all(safety(name) is True for name in listed)
    assert lora_names(None) == ["broken.safetensors", "plain.safetensors"]
    others = lora_names("task", None)
    assert {assets.STYLE, "plain.safetensors"} < set(others) and not set(others) & set(listed)
    assert task("plain.safetensors") is task(assets.STYLE) is True
    assert safety(None) is task(None) is True, "a link is known when it runs"
    for check, name, said in (
        (safety, "plain.safetensors", "this LoRA is not sealed"),
        (safety, assets.STYLE, "this is a task LoRA"),
        (safety, "none.safetensors", "there is no such file. Put it into a loras folder"),
        (safety, "broken.safetensors", "this is a pickle"),
        (task, assets.SAFETY, "this is a safety LoRA. Load it with"),
        (task, "../x.safetensors", "outside the loras folders"),
    ):
        assert check(name).startswith(f"{name}: ") and said in check(name)


def test_a_lora_replaced_on_disk_runs_the_node_again(loras, models):
    path = loras / "x.safetensors"
    path.write_bytes((models / "loras" / assets.STYLE).read_bytes())
    first = LoadTaskLora.fingerprint_inputs(lora_name="x.safetensors", strength_model=1.0)
    assert first == LoadTaskLora.fingerprint_inputs(lora_name="x.safetensors", strength_model=1.0)
    path.write_bytes((models / "loras" / assets.SUBJECT).read_bytes())
    assert LoadTaskLora.fingerprint_inputs(lora_name="x.safetensors", strength_model=1.0) != first
    path.unlink()
    assert "no such file" in LoadTaskLora.fingerprint_inputs(
        lora_name="x.safetensors", strength_model=1.0
    )


def test_seal_safety_lora_writes_what_the_locked_loader_takes(loras, models):
    tensors = load_file(models / "loras" / assets.SAFETY)
    save_file(tensors, loras / "eraser.safetensors")
    safety, digest = SealSafetyLora.execute(
        "eraser.safetensors", concept="nudity", strength=0.5, save_as="sealed/eraser"
    ).args
    assert (
        safety[0].sealed_strength == 0.5
        and safety[0].base == "SD15"
        and safety[0].prompts == ["nudity"]
    )
    typed = SealSafetyLora.execute(
        "eraser.safetensors",
        concept="nudity",
        strength=0.5,
        save_as="sealed/other",
        prompts="a nude, standing\n\n naked",
        held_out="bare\n",
    ).args
    assert typed[0][0].prompts == ["a nude, standing", "naked"]
    assert typed[0][0].held_out == ["bare"] and safety[0].held_out == []
    assert "msl.moments" in typed[0][0].metadata
    assert LoadSafetyLora.execute("sealed/eraser.safetensors", digest).args[1] == digest
    with pytest.raises(FileExistsError, match="exists already"):
        SealSafetyLora.execute(
            "eraser.safetensors", concept="nudity", strength=0.5, save_as="sealed/eraser"
        )
    with pytest.raises(ModuleFileError, match="outside the loras folders"):
        SealSafetyLora.execute(
            "eraser.safetensors", concept="nudity", strength=0.5, save_as="../eraser"
        )
