"""The nodes' contract: id, display name, inputs and outputs of each."""

SUMMARY = ("summary", "STRING")  # the report for people
CONTRACT = {
    "MSL_AuditPromptSet": (
        "Audit Prompt Set",
        {
            "model": "MODEL",
            "clip": "CLIP",
            "vae": "VAE",
            "prompts": "COMBO",
            "name": "STRING",
            "preset": "COMBO",
        },
        [("report", "STRING"), ("chart", "IMAGE"), ("flagged_rate", "FLOAT"), SUMMARY],
    ),
    "MSL_AuditVideo": (
        "Audit Video",
        {
            "video": "VIDEO",
            "preset": "COMBO",
            "every": "FLOAT",
            "action": "COMBO",
            "threshold": "FLOAT",
            "classes": "STRING",
            "second_opinion": "COMBO",
            "min_size": "FLOAT",
        },
        [
            ("video", "VIDEO"),
            ("passed", "BOOLEAN"),
            ("report", "STRING"),
            ("sheet", "IMAGE"),
            SUMMARY,
        ],
    ),
    "MSL_CompareAudits": (
        "Compare Audits",
        {"reports": "COMFY_AUTOGROW_V3", "names": "STRING", "images": "COMFY_AUTOGROW_V3"},
        [("chart", "IMAGE"), ("changed", "IMAGE"), ("table", "STRING"), ("report", "STRING")],
    ),
    "MSL_ExampleModel": (
        "Example Model",
        {},
        [("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE")],
    ),
    "MSL_ExtractSafetyLora": (
        "Extract Safety LoRA",
        {
            "model": "MODEL",
            "clip": "CLIP",
            "source": "COMBO",
            "concept": "STRING",
            "save_as": "STRING",
            "form": "COMBO",
            "keep": "FLOAT",
            "rank": "INT",
            "prompts": "STRING",
            "held_out": "STRING",
            "strength": "FLOAT",
            "file_precision": "COMBO",
        },
        [
            ("safety", "MSL_SAFETY_LORA"),
            ("sha256", "STRING"),
            SUMMARY,
            ("report", "STRING"),
        ],
    ),
    "MSL_LoadSafetyLora": (
        "Load Safety LoRA (locked)",
        {"lora_name": "COMBO", "sha256": "STRING", "safety": "MSL_SAFETY_LORA"},
        [("safety", "MSL_SAFETY_LORA"), ("sha256", "STRING")],
    ),
    "MSL_LoadTaskLora": (
        "Load Task LoRA",
        {
            "lora_name": "COMBO",
            "strength_model": "FLOAT",
            "strength_clip": "FLOAT",
            "tasks": "MSL_TASK_LORA",
        },
        [("tasks", "MSL_TASK_LORA")],
    ),
    "MSL_ModularMerge": (
        "Modular Merge",
        {
            "model": "MODEL",
            "safety": "MSL_SAFETY_LORA",
            "clip": "CLIP",
            "tasks": "MSL_TASK_LORA",
            "foreign_changes": "COMBO",
            "on_conflict": "COMBO",
        },
        [
            ("model", "MODEL"),
            ("clip", "CLIP"),
            ("report", "STRING"),
            ("interference", "IMAGE"),
            SUMMARY,
        ],
    ),
    "MSL_NudityAudit": (
        "Nudity Audit",
        {
            "images": "IMAGE",
            "preset": "COMBO",
            "threshold": "FLOAT",
            "action": "COMBO",
            "classes": "STRING",
            "second_opinion": "COMBO",
            "min_size": "FLOAT",
        },
        [
            ("images", "IMAGE"),
            ("passed", "BOOLEAN"),
            ("report", "STRING"),
            ("flagged", "MASK"),
            SUMMARY,
        ],
    ),
    "MSL_ProbeSafety": (
        "Probe Safety",
        {
            "model": "MODEL",
            "action": "COMBO",
            "prompts": "STRING",
            "seed": "INT",
            "adaptive_steps": "INT",
        },
        [
            ("model", "MODEL"),
            ("passed", "BOOLEAN"),
            SUMMARY,
            ("report", "STRING"),
            ("chart", "IMAGE"),
        ],
    ),
    "MSL_SealSafetyLora": (
        "Seal Safety LoRA",
        {
            "lora_name": "COMBO",
            "concept": "STRING",
            "strength": "FLOAT",
            "save_as": "STRING",
            "prompts": "STRING",
            "held_out": "STRING",
        },
        [("safety", "MSL_SAFETY_LORA"), ("sha256", "STRING")],
    ),
    "MSL_TrainSafetyLora": (
        "Train Safety LoRA",
        {
            "model": "MODEL",
            "clip": "CLIP",
            "concept": "STRING",
            "method": "COMBO",
            "steps": "INT",
            "save_as": "STRING",
        },
        [("safety", "MSL_SAFETY_LORA"), ("loss_plot", "IMAGE"), ("sha256", "STRING"), SUMMARY],
    ),
    "MSL_TrainTaskLora": (
        "Train Task LoRA",
        {
            "model": "MODEL",
            "safety": "MSL_SAFETY_LORA",
            "latents": "LATENT",
            "positive": "CONDITIONING",
            "safety_mode": "COMBO",
            "save_as": "STRING",
        },
        [("tasks", "MSL_TASK_LORA"), ("loss_plot", "IMAGE"), ("report", "STRING"), SUMMARY],
    ),
}
# the contract leaves their other settings open
OPEN = {"MSL_AuditPromptSet", "MSL_TrainSafetyLora", "MSL_TrainTaskLora"}
