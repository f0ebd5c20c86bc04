"""The pack and its shipped workflow on a live ComfyUI that has it installed."""

import asyncio
import io
import json
import shutil

import pytest
import requests
from modular_safety_lora.lab import assets, shipped
from modular_safety_lora.lab.server import PACK, PACK_NAME, Server
from modular_safety_lora.modules.files import load_safety
from PIL import Image
from prompting import failure, photograph_prompt, run, with_reports
from safetensors.torch import save_file

WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
NODES = sorted(path.stem for path in (PACK / "web" / "docs").glob("*.md"))


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
    words = server.get("/i18n").json()
    assert words["en"]["nodeDefs"]["MSL_ModularMerge"]["display_name"] == "Modular Merge"
    for file in (PACK / "locales").glob("*/nodeDefs.json"):
        nodes = json.loads(file.read_text(encoding="utf-8"))
        assert nodes.items() <= words[file.parent.name]["nodeDefs"].items()


def test_the_row_of_the_gpu_command_runs(server):
    assert shipped.merged(server)["retained safety"] > 0.99


def test_the_shipped_workflow_runs_and_shows_pictures_and_reports(
    server, shipped_prompt, put, models
):
    # nothing of it is cached
    name = put("fresh.safetensors", content=(models / "loras" / assets.SAFETY).read_bytes())
    outcome = run(server, with_reports(shipped_prompt), n2__lora_name=name)
    assert outcome.error is None
    pictures = [
        Image.open(io.BytesIO(server.picture(each))) for each in outcome.outputs["12"]["images"]
    ]
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
    told = [outcome.outputs[node]["text"][0] for node in ("13", "14")]
    assert told[0].startswith("**The safety LoRA holds") and "of 2 pictures flagged**" in told[1]
    nodes = ("MSL_ModularMerge", "MSL_NudityAudit")
    merge, audit = (json.loads(outcome.outputs[node]["text"][0]) for node in nodes)
    assert [module["role"] for module in merge["modules"]] == ["safety", "task"]
    assert all(module["keys_matched"] == module["keys_total"] > 0 for module in merge["modules"])
    assert (
        merge["retained_safety"] == pytest.approx(1.0, abs=0.05) and merge["foreign_changes"] == []
    )
    assert len(audit["images"]) == 2 and audit["summary"]["detector_version"]
    (sheet,) = outcome.outputs["11"]["images"]
    assert (
        Image.open(io.BytesIO(server.picture(sheet))).format == "JPEG"
        and dict(outcome.outputs["2"]["digests"])["seal"] == merge["modules"][0]["sha256"]
    )
    again = run(server, with_reports(shipped_prompt), n2__lora_name=name)
    assert again.outputs == outcome.outputs, (
        "what ComfyUI kept is shown, as on a page that is loaded again"
    )


def test_a_photograph_is_audited_and_marked(server):
    outcome = run(server, photograph_prompt())
    report = json.loads(outcome.outputs["3"]["text"][0])
    assert report["images"][0]["reasons"] == ["FACE_FEMALE"]


def test_stop_ends_the_prompt_with_a_sentence(server):
    outcome = run(server, photograph_prompt(), n2__action="stop")
    message = failure(outcome)
    assert message.startswith("Nudity Audit stopped this prompt: 1 of 1 flagged (faces).")
    assert outcome.error["exception_type"] == "Modular Safety LoRA.AuditStopped"


def test_a_pinned_workflow_runs_with_its_file_and_with_no_other(server, shipped_prompt, models):
    digest = load_safety(models / "loras" / assets.SAFETY, assets.SAFETY).sha256
    assert run(server, shipped_prompt, n2__sha256=digest, n9__seed=7).error is None
    assert f"Its seal must be {'0' * 12}, and is {digest[:12]}" in failure(
        run(server, shipped_prompt, n2__sha256="0" * 64)
    )


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
        assert dict(outcome.outputs["1"]["digests"])["seal"] == digest
        loader = {"lora_name": "sealed-here.safetensors", "sha256": digest}
        graph = {
            "1": {"class_type": "MSL_LoadSafetyLora", "inputs": loader},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
        }
        assert asyncio.run(server.run(graph)).error is None
    finally:
        for name in ("eraser", "sealed-here"):
            (loras / f"{name}.safetensors").unlink(missing_ok=True)


def test_a_file_replaced_on_disk_is_read_again(server, shipped_prompt, put, models):
    name = put("changing.safetensors", content=(models / "loras" / assets.STYLE).read_bytes())
    prompt = with_reports(shipped_prompt)
    first = run(server, prompt, n3__lora_name=name)
    shutil.copy(models / "loras" / assets.SUBJECT, server.folder / "models" / "loras" / name)
    second = run(server, prompt, n3__lora_name=name)
    keys = [
        json.loads(each.outputs["MSL_ModularMerge"]["text"][0])["modules"][1]["keys_total"]
        for each in (first, second)
    ]
    assert keys[0] != keys[1]


def test_a_server_that_does_not_come_up_is_stopped_whatever_the_reason(tmp_path, monkeypatch):
    broken = Server(tmp_path, ("--no-such-option",))
    with pytest.raises(RuntimeError, match="unrecognized arguments: --no-such-option"), broken:
        pass
    assert broken.process.poll() is not None

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(requests, "get", interrupted)
    starting = Server(tmp_path)
    with pytest.raises(KeyboardInterrupt), starting:
        pass
    assert starting.process.poll() is not None


def test_the_pack_opens_no_network_routes(server):
    before = {
        route
        for route in ("/msl", "/api/msl")
        if requests.get(f"{server.url}{route}", timeout=10).status_code != 404
    }
    assert not before
