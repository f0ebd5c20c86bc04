"""The shipped workflow and bad inputs, posted to a live ComfyUI that has the pack installed."""

import asyncio
import io
import json
import shutil

import pytest
import requests
import torch
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.demo.__main__ import photograph_prompt
from modular_safety_lora.lab.server import PACK, PACK_NAME, PromptRefused, Server
from modular_safety_lora.modules.files import load_safety, save_module
from PIL import Image
from safetensors.torch import load_file, save_file

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
NODES = sorted(path.stem for path in (PACK / "web" / "docs").glob("*.md"))


def run(server, prompt, **changes):
    """Run a prompt with changed inputs: `node__input=value`."""
    prompt = json.loads(json.dumps(prompt))
    for place, value in changes.items():
        node, name = place.removeprefix("n").split("__")
        prompt[node]["inputs"][name] = value
    return asyncio.run(server.run(prompt))


def failure(outcome) -> str:
    """The message of the node that failed, when no picture was made."""
    assert outcome.error is not None, "the prompt should have failed"
    assert not any("images" in ui for ui in outcome.outputs.values())
    return outcome.error["exception_message"]


@pytest.fixture
def put(server):
    """Write a file into the live server's loras folder for one test."""
    written = []

    def write(
        name: str, tensors=None, metadata=None, role="safety", content: bytes | None = None
    ) -> str:
        path = server.folder / "models" / "loras" / name
        if content is None:
            save_module(path, tensors, metadata or {}, role)
        else:
            path.write_bytes(content)
        written.append(path)
        return name

    yield write
    for path in written:
        path.unlink()


@pytest.fixture
def sealed_tensors(models):
    return load_file(models / "loras" / assets.SAFETY)


def test_the_pack_loads_without_a_warning_and_serves_its_pages(server):
    # other tests make prompts fail later
    log = server.log.read_text(errors="replace").split("To see the GUI go to")[0]
    assert "IMPORT FAILED" not in log and "Traceback" not in log
    info = server.get("/object_info").json()
    assert sorted(name for name in info if name.startswith("MSL_")) == NODES
    for node in NODES:
        info = server.get(f"/object_info/{node}").json()[node]
        assert (
            info["python_module"] == f"custom_nodes.{PACK_NAME}"
            and info["category"] == "safety/modular LoRA"
        )
        assert server.get(f"/extensions/{PACK_NAME}/docs/{node}.md").text.startswith(
            f"# {info['display_name']}"
        )
    assert set(server.get("/workflow_templates").json()[PACK_NAME]) == set(WORKFLOWS)
    for name in WORKFLOWS:
        picture = server.get(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg").content
        assert Image.open(io.BytesIO(picture)).format == "JPEG"
    words = server.get("/i18n").json()["en"]["nodeDefs"]
    assert words["MSL_ModularMerge"]["display_name"] == "Modular Merge"


def test_the_shipped_workflow_runs_and_shows_pictures_and_reports(
    server, shipped_prompt, put, models
):
    # nothing of it is cached
    name = put("fresh.safetensors", content=(models / "loras" / assets.SAFETY).read_bytes())
    outcome = run(server, shipped_prompt, n2__lora_name=name)
    assert outcome.error is None
    pictures = [
        Image.open(io.BytesIO(server.picture(each))) for each in outcome.outputs["12"]["images"]
    ]
    assert [picture.size for picture in pictures] == [(256, 256)] * 2
    merge, audit = (json.loads(outcome.outputs[node]["text"][0]) for node in ("13", "14"))
    assert [module["role"] for module in merge["modules"]] == ["safety", "task", "task"]
    assert all(module["keys_matched"] == module["keys_total"] > 0 for module in merge["modules"])
    assert (
        merge["retained_safety"] == pytest.approx(1.0, abs=0.05) and merge["foreign_changes"] == []
    )
    assert len(audit["images"]) == 2 and audit["summary"]["detector_version"]
    (sheet,) = outcome.outputs["11"]["images"]
    assert (
        Image.open(io.BytesIO(server.picture(sheet))).format == "JPEG"
        and outcome.outputs["2"]["text"]
    )


def test_a_photograph_is_audited_and_marked(server):
    outcome = run(server, photograph_prompt())
    report = json.loads(outcome.outputs["3"]["text"][0])
    assert report["images"][0]["reasons"] == ["FACE_FEMALE"]


def test_stop_ends_the_prompt_with_the_report(server):
    message = failure(run(server, photograph_prompt(), n2__action="stop"))
    assert message.startswith("The Nudity Audit stopped this prompt: 1 of 1 flagged (faces).")
    assert json.loads(message.split("Report: ", 1)[1])["summary"]["flagged"] == 1


def test_a_pinned_workflow_runs_with_its_file_and_with_no_other(server, shipped_prompt, models):
    digest = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY).sha256
    assert run(server, shipped_prompt, n2__sha256=digest, n9__seed=7).error is None
    assert f"expects the safety module {'0' * 64}" in failure(
        run(server, shipped_prompt, n2__sha256="0" * 64)
    )


def test_a_safety_module_for_another_base_makes_no_picture(server, shipped_prompt, put):
    other = {"diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight": torch.ones(4, 8)}
    other["diffusion_model.double_blocks.0.img_attn.qkv.lora_B.weight"] = torch.ones(24, 4)
    name = put("flux-safety.safetensors", other, {"msl.base": "Flux"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert message.startswith(
        "flux-safety.safetensors: 2 of 2 safety tensors do not fit this model (first:"
        " diffusion_model.double"
    )
    assert "It was made for Flux; this model is SD15." in message


def test_a_renamed_safety_key_makes_no_picture(server, shipped_prompt, put, sealed_tensors):
    key = sorted(sealed_tensors)[0]
    sealed_tensors[key.replace("attn2", "attn3")] = sealed_tensors.pop(key)
    name = put("renamed.safetensors", sealed_tensors, {"msl.base": "SD15"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert (
        message.startswith(f"renamed.safetensors: 1 of {len(sealed_tensors)} safety tensors")
        and key in message
    )


def test_a_safety_tensor_of_the_wrong_shape_makes_no_picture(
    server, shipped_prompt, put, sealed_tensors
):
    key = sorted(key for key in sealed_tensors if "lora_B" in key)[0]
    sealed_tensors[key] = sealed_tensors[key][:-8]
    name = put("misshapen.safetensors", sealed_tensors, {"msl.base": "SD15"})
    message = failure(run(server, shipped_prompt, n2__lora_name=name))
    assert message.startswith(f"misshapen.safetensors: 2 of {len(sealed_tensors)} safety tensors")
    assert key.replace("lora_B", "lora_A") in message and "on a weight of (320, 768)" in message


def test_a_stock_lora_is_sealed_and_then_loads_as_a_safety_module(
    server, shipped_prompt, sealed_tensors
):
    loras = server.folder / "models" / "loras"
    save_file(sealed_tensors, loras / "eraser.safetensors")
    inputs = {
        "lora_name": "eraser.safetensors",
        "concept": "nudity",
        "strength": 0.9,
        "save_as": "sealed-here",
    }
    try:
        outcome = asyncio.run(
            server.run({"1": {"class_type": "MSL_SealSafetyLora", "inputs": inputs}})
        )
        assert outcome.error is None
        digest = load_safety(loras / "sealed-here.safetensors", "s").sha256
        assert outcome.outputs["1"]["text"] == [digest] or digest in str(outcome.outputs)
        assert (
            run(
                server, shipped_prompt, n2__lora_name="sealed-here.safetensors", n2__sha256=digest
            ).error
            is None
        )
    finally:
        for name in ("eraser", "sealed-here"):
            (loras / f"{name}.safetensors").unlink(missing_ok=True)


def test_a_damaged_safety_module_makes_no_picture(server, shipped_prompt, put, models):
    content = bytearray((models / "loras" / assets.SAFETY).read_bytes())
    content[-1] ^= 1
    name = put("damaged.safetensors", content=bytes(content))
    assert "the seal of this safety module is not intact" in failure(
        run(server, shipped_prompt, n2__lora_name=name)
    )


def test_a_safety_module_in_the_task_loader_and_the_other_way_round(server, shipped_prompt):
    assert "this is a safety module" in failure(
        run(server, shipped_prompt, n3__lora_name=assets.SAFETY)
    )
    assert "its role is 'task'" in failure(run(server, shipped_prompt, n2__lora_name=assets.STYLE))


def test_a_lora_loader_after_the_merge_stops_sampling(server, shipped_prompt):
    loader = {"model": ["5", 0], "lora_name": assets.STYLE, "strength_model": -1.0}
    prompt = {**shipped_prompt, "20": {"class_type": "LoraLoaderModelOnly", "inputs": loader}}
    message = failure(run(server, prompt, n9__model=["20", 0]))
    assert "is not whole on the model that samples" in message


def test_a_file_replaced_on_disk_is_read_again(server, shipped_prompt, put, models):
    name = put("changing.safetensors", content=(models / "loras" / assets.STYLE).read_bytes())
    first = run(server, shipped_prompt, n3__lora_name=name)
    shutil.copy(models / "loras" / assets.SUBJECT, server.folder / "models" / "loras" / name)
    second = run(server, shipped_prompt, n3__lora_name=name, n4__lora_name=assets.STYLE)
    keys = [
        json.loads(each.outputs["13"]["text"][0])["modules"][1]["keys_total"]
        for each in (first, second)
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("n2__lora_name", "../../checkpoints/small-sd15.safetensors"),
        ("n2__lora_name", "missing.safetensors"),
        ("n5__foreign_changes", "ignore"),
        ("n11__preset", "nothing"),
        ("n11__threshold", 2.0),
        ("n3__strength_model", "strong"),
        ("n5__safety", ["3", 0]),
        ("n5__tasks", ["2", 0]),
    ],
)
def test_bad_values_are_refused_before_anything_runs(server, shipped_prompt, place, value):
    with pytest.raises(PromptRefused) as caught:
        run(server, shipped_prompt, **{place: value})
    assert caught.value.errors["node_errors"]


def test_a_merge_without_its_safety_module_is_refused(server, shipped_prompt):
    del shipped_prompt["5"]["inputs"]["safety"]
    with pytest.raises(PromptRefused, match="safety"):
        run(server, shipped_prompt)


def test_the_server_is_stopped_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt), Server(tmp_path) as server:
        assert server.process.poll() is None
        raise KeyboardInterrupt
    assert server.process.poll() is not None
    broken = Server(tmp_path, ("--no-such-option",))
    with pytest.raises(RuntimeError, match="unrecognized arguments: --no-such-option"), broken:
        pass
    assert broken.process.poll() is not None


def test_the_pack_opens_no_network_routes(server):
    before = {
        route
        for route in ("/msl", "/api/msl")
        if requests.get(f"{server.url}{route}", timeout=10).status_code != 404
    }
    assert not before
