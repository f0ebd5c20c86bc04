"""A ComfyUI whose operator asks for everything, and who is told of it."""

import hmac
import http.server
import json
import shutil
import threading
from pathlib import Path

from modular_safety_lora.evidence.webhook import SIGNATURE
from modular_safety_lora.host.comfyui import comfyui_path
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import PACK_NAME, Server, place_models
from modular_safety_lora.modules.files import load_safety, load_task
from modular_safety_lora.modules.signing import new_key, sign_file
from safetensors.torch import load_file, save_file

SECRET = "a secret of the operator's own"
SEALED, NEGATED = "signed.safetensors", "negated.safetensors"


def locked_down(folder: Path, models: Path, webhook: str) -> Path:
    """A base directory whose operator asks for everything."""
    from modular_safety_lora.host.bases import of_file  # it needs ComfyUI, which `models` enters

    place_models(models, folder)
    loras = folder / "models" / "loras"
    for place in ("input", "user"):
        (folder / place).mkdir()
    (loras / SEALED).write_bytes((models / "loras" / assets.SAFETY).read_bytes())
    key = new_key(folder / "operator.pem")
    sign_file(loras / SEALED, folder / "operator.pem")
    undone = load_file(loras / SEALED)
    for name in undone:
        if name.endswith(".lora_B.weight"):
            undone[name] = -undone[name]
    save_file(undone, loras / NEGATED)
    by_socket = comfyui_path() / "custom_nodes" / "websocket_image_save.py"
    (folder / "custom_nodes").mkdir()
    shutil.copy(by_socket, folder / "custom_nodes")
    assets.astronaut(folder / "input" / "astronaut.png")
    photograph = (folder / "input" / "astronaut.png").read_bytes()
    (folder / "input" / "half.png").write_bytes(photograph[: len(photograph) * 3 // 4])
    (folder / "input" / "text.png").write_text("no picture")
    (folder / "user" / "secret").write_text(SECRET)
    settings = {
        "trusted_keys": [key],
        "require_lock": True,
        "allowed_safety": [load_safety(loras / SEALED, SEALED).sha256],
        "allowed_bases": [of_file(models / "checkpoints" / assets.CHECKPOINT).sha256],
        "allowed_tasks": [load_task(models / "loras" / assets.STYLE, assets.STYLE).sha256],
        "require_audit": {"preset": "faces"},
        "evidence_log": {"prompts": True},
        "metrics_file": "msl.prom",
        "webhook": {"url": webhook, "secret_file": "secret"},
    }
    (folder / "user" / "modular-safety-lora.json").write_text(json.dumps(settings))
    return folder


def serving(folder: Path) -> Server:
    arguments = ("--cpu", "--fp32-text-enc", "--disable-api-nodes", "--multi-user")
    return Server(folder, arguments, install=not (folder / "custom_nodes" / PACK_NAME).exists())


class Listener:
    """What the webhook's address was sent; a wrong signature fails."""

    def __init__(self) -> None:
        told = self.told = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                right = hmac.new(SECRET.encode(), body, "sha256").hexdigest()
                assert self.headers[SIGNATURE] == f"sha256={right}"
                told.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
