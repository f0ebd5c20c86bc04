"""Every node of the pack in one graph, and ComfyUI's own executor in this process to run it."""

import asyncio
from pathlib import Path

PICTURES = 64
STOCK = "stock.safetensors"  # the safety module's tensors as anyone's LoRA, to be sealed
SMALL = {
    "preset": "strict",
    "steps": 2,
    "cfg": 7.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "first_seed": 0,
}
SMALL |= {
    "prompts": "example: twelve harmless prompts",
    "width": 64,
    "height": 64,
    "limit": 4,
    "keep": "none",
}
TRAIN = {
    "learning_rate": 1e-4,
    "rank": 4,
    "batch_size": 1,
    "seed": 0,
    "save_every": 0,
    "resume": False,
}


def started(folder: Path) -> tuple[object, dict]:
    """(executor, prompt): ComfyUI with its folders below `folder`, our nodes, the seeded models."""
    import execution
    import folder_paths
    import server
    from safetensors.torch import load_file, save_file

    import nodes

    from ... import comfy_entrypoint
    from .. import assets
    from ..server import place_models

    place_models(assets.shared_models(), folder)
    for kind in ("checkpoints", "loras"):
        folder_paths.folder_names_and_paths[kind] = (
            [str(folder / "models" / kind)],
            {".safetensors"},
        )
    for name in ("input", "output", "temp", "user"):
        (folder / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(folder / name))
    assets.astronaut(folder / "input" / "astronaut.png")
    loras = folder / "models" / "loras"
    save_file(load_file(loras / assets.SAFETY), loras / STOCK)

    async def start():
        await nodes.load_custom_node(
            str(Path(nodes.__file__).with_name("comfy_extras") / "nodes_images.py"), "comfy_extras"
        )
        found = await (await comfy_entrypoint()).get_node_list()
        nodes.NODE_CLASS_MAPPINGS |= {node.GET_SCHEMA().node_id: node for node in found}
        return server.PromptServer(asyncio.get_running_loop())

    running = asyncio.run(start())
    running.send_sync = lambda *message: None  # nobody listens
    kept = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(
        running, cache_type=execution.CacheType.CLASSIC, cache_args=kept
    )
    return executor, _graph()


def _graph() -> dict:
    from .. import assets

    def node(kind: str, **inputs) -> dict:
        return {"class_type": kind, "inputs": inputs}

    models = {"model": ["base", 0], "clip": ["base", 1]}
    audit = {"images": ["pictures", 0], "preset": "strict", "threshold": 0.0, "action": "none"}
    latents = {"latents": ["latent", 0], "positive": ["text", 0], "safety": ["safety", 0]}
    return {
        "base": node("CheckpointLoaderSimple", ckpt_name=assets.CHECKPOINT),
        "picture": node("LoadImage", image="astronaut.png"),
        "pictures": node("RepeatImageBatch", image=["picture", 0], amount=PICTURES),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "text": node("CLIPTextEncode", clip=["base", 1], text="a cat"),
        "safety": node("MSL_LoadSafetyLora", lora_name=assets.SAFETY, sha256=""),
        "style": node(
            "MSL_LoadTaskLora", lora_name=assets.STYLE, strength_model=1.0, strength_clip=1.0
        ),
        "tasks": node(
            "MSL_LoadTaskLora",
            lora_name=assets.SUBJECT,
            strength_model=1.0,
            strength_clip=1.0,
            tasks=["style", 0],
        ),
        "seal": node("MSL_SealSafetyLora", lora_name=STOCK, concept="nothing", strength=1.0),
        "merge": node("MSL_ModularMerge", **models, safety=["safety", 0], tasks=["tasks", 0]),
        "black": node("EmptyImage", width=512, height=512, batch_size=PICTURES, color=0),
        "audit": node("MSL_NudityAudit", **audit),
        "flagged": node("MSL_NudityAudit", **audit | {"preset": "faces"}),
        "annotated": node("MSL_NudityAudit", **audit | {"preset": "faces", "action": "annotate"}),
        "clean": node("MSL_NudityAudit", **audit | {"preset": "faces", "images": ["black", 0]}),
        "compare": node(
            "MSL_CompareAudits",
            names="base, safe",
            **{"reports.report0": ["annotated", 2], "reports.report1": ["clean", 2]},
            **{"images.images0": ["pictures", 0], "images.images1": ["black", 0]},
        ),
        "prompts": node("MSL_AuditPromptSet", **models, vae=["base", 2], **SMALL),
        "task": node(
            "MSL_TrainTaskLora",
            model=["base", 0],
            **latents,
            **TRAIN,
            safety_mode="detached",
            targets="attention",
            steps=20,
        ),
        "erase": node(
            "MSL_TrainSafetyLora",
            **models,
            **TRAIN,
            concept="nudity",
            concept_preset="none",
            method="esd-x",
            steps=20,
            resolution=64,
            sampling_steps=10,
        ),
    }
