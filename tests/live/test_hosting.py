"""docs/hosting.md from nothing to a ComfyUI behind nginx."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

import pytest
import requests
from aiohttp import ClientSession
from hosting_page import (
    commands_of_the_page,
    proxy_of_the_page,
    settings_of_the_page,
)
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.verify import read_lines, verify
from modular_safety_lora.lab import assets
from modular_safety_lora.lab.server import Server, install_pack, place_models

pytestmark = pytest.mark.long
FORGED = {"comfy-user": "mallory", "X-Forwarded-For": "198.51.100.1"}
MB = 2**20


PLACES = {"settings": ["user/modular-safety-lora.json"], "log": ["--folder", f"user/{FOLDER}"]}


def typed(command: str, folder) -> str:
    """A command of the page, by path; the folder is ComfyUI's base directory alone."""
    words = command.split()
    words += PLACES.get(words[2], [])
    done = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """A folder in which every command of the page up to the server was typed."""
    folder = tmp_path_factory.mktemp("hosted")
    install_pack(folder / "custom_nodes")
    place_models(models, folder)
    for place in ("input", "user"):
        (folder / place).mkdir()
    assets.astronaut(folder / "input" / "astronaut.png")
    checkpoints = folder / "models" / "checkpoints"
    assets.link(checkpoints / assets.CHECKPOINT, checkpoints / "BASE.safetensors")
    safety = folder / "safety.safetensors"
    safety.write_bytes((models / "loras" / assets.SAFETY).read_bytes())
    said, settings = "", settings_of_the_page()
    for command in commands_of_the_page():
        if command.startswith("python main.py"):
            break
        if command.endswith("settings check"):
            for name in ("allowed_safety", "allowed_bases"):
                settings[name] = re.findall(rf"{name}: ([0-9a-f]{{64}})", said)
            settings["trusted_keys"] = re.findall(r"[A-Za-z0-9+/]{43}=", said)[:1]
            settings["require_audit"]["preset"] = "faces"
            settings["evidence_log"]["addresses"] = "proxy"
            (folder / "user" / "modular-safety-lora.json").write_text(json.dumps(settings))
        said += typed(command, folder)
    assert "This holds:" in said and "Look at this" not in said, said
    shutil.copy(safety, folder / "models" / "loras" / "safety.safetensors")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    """It is served as the page says, on the CPU."""
    (command,) = [each for each in commands_of_the_page() if each.startswith("python main.py")]
    with Server(folder, (*command.split()[2:], "--cpu"), install=False) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(server, tmp_path_factory):
    """(address, user) of nginx before it, with a certificate and two logins of its own."""
    if not shutil.which("nginx"):
        pytest.skip("NO NGINX: docs/hosting/nginx.conf is not tried")
    place = tmp_path_factory.mktemp("nginx")
    told = {"username": "anna"}
    user = requests.post(f"{server.url}/users", json=told, timeout=30).json()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    files = ["-keyout", place / "comfyui.key", "-out", place / "comfyui.crt"]
    subprocess.run([*new, *files, "-subj", "/CN=localhost"], check=True, capture_output=True)
    made = ["openssl", "passwd", "-apr1", "secret"]
    word = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
    (place / "comfyui.htpasswd").write_text(f"anna:{word}\nben:{word}\n")
    instead = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8188": f"127.0.0.1:{server.port}",
        "anna_1b671a64-40d5-491e-99b0-da01ff1f3341": user,
        "/etc/nginx": str(place),
    }
    place.chmod(0o755)
    (place / "nginx.conf").write_text(
        f"pid {place}/pid;\nerror_log {place}/errors;\nevents {{}}\nuser root;\n"
        f"http {{\naccess_log off;\nclient_body_temp_path {place}/body;\n"
        f"{proxy_of_the_page(**instead)}\n}}\n"
    )
    command = ["nginx", "-c", str(place / "nginx.conf"), "-g", "daemon off;"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}", user
    finally:
        running.send_signal(signal.SIGQUIT)
        running.wait(20)


def asked(proxy, path: str, who: str | None = "anna", method: str = "GET", **more):
    import urllib3

    urllib3.disable_warnings()
    login = None if who is None else (who, "secret")
    return requests.request(
        method, f"{proxy[0]}{path}", auth=login, verify=False, timeout=60, headers=FORGED, **more
    )


def test_nobody_passes_without_a_login_that_is_a_user(proxy):
    assert asked(proxy, "/", None).status_code == 401
    for path in ("/", "/users", "/api/users"):
        assert asked(proxy, path, "ben").status_code == 403, path
    assert "<html" in asked(proxy, "/").text.lower()
    told = {"username": "eve"}
    for path in ("/users", "/api/users"):
        assert asked(proxy, path, method="POST", json=told).status_code == 403
        assert asked(proxy, path).ok


def test_uploads_pass_up_to_the_servers_own_limit(proxy):
    for size, status in ((90, 200), (101, 413)):
        sent = {"image": ("big.bin", bytes(size * MB))}
        assert asked(proxy, "/upload/image", method="POST", files=sent).status_code == status


def run(proxy, graph: dict) -> dict:
    """A prompt through the proxy, followed on its websocket; its entry in the history."""
    import aiohttp

    async def follow() -> str:
        login = aiohttp.BasicAuth("anna", "secret")
        plain = ssl._create_unverified_context()
        async with (
            ClientSession(proxy[0], auth=login, headers=FORGED) as session,
            session.ws_connect("/ws?clientId=c1", ssl=plain) as ws,
        ):
            body = {"prompt": graph, "client_id": "c1"}
            async with session.post("/prompt", json=body, ssl=plain) as answer:
                number = (await answer.json())["prompt_id"]
            while True:
                event = await ws.receive_json(timeout=120)
                if event["type"] in ("execution_success", "execution_error"):
                    return number

    number = asyncio.run(follow())
    while not (found := asked(proxy, f"/history/{number}").json()):
        time.sleep(0.05)
    return found[number]


def test_a_graph_past_the_merge_stops_and_a_flagged_picture_is_withheld(
    proxy, folder, shipped_prompt
):
    shipped_prompt["2"]["inputs"]["lora_name"] = "safety.safetensors"
    shipped_prompt["9"]["inputs"]["model"] = ["1", 0]
    said = dict(run(proxy, shipped_prompt)["status"]["messages"])["execution_error"]
    assert said["exception_type"] == "Modular Safety LoRA.NoLock"
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    (shown,) = run(proxy, graph)["outputs"]["2"]["images"]
    answer = asked(proxy, "/view", params=shown)
    assert answer.headers["X-Modular-Safety-LoRA"].startswith("withheld")
    log = folder / "user" / FOLDER
    lines = [line for line in read_lines(log) if line.kind in ("prompt", "refused", "verdict")]
    assert verify(log).whole and {line.facts["user"] for line in lines} == {proxy[1]}
    begun = [line.facts for line in lines if line.facts.get("state") == "queued"]
    assert {each["address"] for each in begun} == {"127.0.0.1"}, "as nginx saw it"
    for command in commands_of_the_page():
        if " log " in command:
            typed(command, folder)
