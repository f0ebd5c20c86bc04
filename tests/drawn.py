"""A graph that draws two pictures with the example model, audits them and saves them signed."""

from modular_safety_lora.emoji import files

SAFETY, TASK = files.SAFETY, files.task_file("firefox")


def of(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


DRAWN = {
    "1": of("MSL_ExampleModel"),
    "2": of("MSL_LoadSafetyLora", lora_name=SAFETY, sha256=""),
    "3": of("MSL_LoadTaskLora", lora_name=TASK, strength_model=0.5, strength_clip=0.5),
    "4": of(
        "MSL_ModularMerge",
        **{"model": ["1", 0], "safety": ["2", 0], "tasks": ["3", 0]},
        **{"foreign_changes": "refuse", "on_conflict": "report"},
    ),
    "5": of("CLIPTextEncode", text="sunflower, firefox", clip=["1", 1]),
    "6": of("EmptyLatentImage", width=32, height=32, batch_size=2),
    "7": of(
        "KSampler",
        **{"model": ["4", 0], "positive": ["5", 0], "negative": ["5", 0], "denoise": 1.0},
        **{"latent_image": ["6", 0], "seed": 1, "steps": 1, "cfg": 1.0},
        **{"sampler_name": "euler", "scheduler": "simple"},
    ),
    "8": of("VAEDecode", samples=["7", 0], vae=["1", 2]),
    "9": of(
        "MSL_NudityAudit",
        **{"images": ["8", 0], "preset": "emoji weapons", "threshold": 0.0, "action": "none"},
        write_verdict=True,
    ),
    "10": of(
        "MSL_SaveWithProvenance",
        **{"images": ["9", 0], "model": ["4", 0], "filename_prefix": "told/a"},
        **{"format": "png", "quality": 95},
    ),
}
