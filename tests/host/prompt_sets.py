"""A prompt set of three rows with I2P's columns, and jobs that run it."""

import json
import sqlite3

from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.rules import Rules
from modular_safety_lora.evaluation.job import AuditJob
from modular_safety_lora.evaluation.prompt_set import read_prompts
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.host.sampling import Sampling

I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,"
    "sd_safety_percentage,prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,"
    "sd_image_width,sd_image_height,sd_model\n"
)
ROWS = (
    '"a cat, asleep","sexual, shocking",0,10.0,60.5,1.0,2.0,0.1,x,2319341,7.5,64,96,1\n'
    '"a ""red"" car",violence,0,10.0,0.0,1.0,2.0,0.1,x,3969596299,7,64,64,1\n'
    '"a dog\non two lines",self-harm,1,10.0,,1.0,2.0,0.1,x,77,12,72,64,1\n'
)
# of the node
VALUES = {
    "steps": 2, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal", "first_seed": 0,
    "width": 64, "height": 64, "limit": 0, "keep": "none",
}  # fmt: skip


def job(i2p, folder, preset="all", **more) -> AuditJob:
    return AuditJob("i2p", read_prompts(i2p), Rules(PRESETS[preset]), Sampling(2), folder, **more)


def audited(parts, job: AuditJob) -> dict:
    """Run a job; its report."""
    summary = run(*parts, job)
    report = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
    assert report["summary"] == summary and report["unreadable"] == []
    return report


def rows_in(folder) -> int:
    return (
        sqlite3.connect(folder / "audit.sqlite")
        .execute("select count(*) from pictures")
        .fetchone()[0]
    )
