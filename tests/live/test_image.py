"""The steps of the image that docs/hosting.md names, without Docker."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import venv

import pytest
import requests
from hosting_page import steps_of_the_image
from modular_safety_lora.lab.server import install_pack

CPU = "https://download.pytorch.org/whl/cpu"  # one index more to reach; both have torch
pytestmark = pytest.mark.long  # it fetches torch


def test_the_steps_of_the_image_make_a_comfyui_that_holds_the_settings(tmp_path):
    """Without Docker: below a folder, with an environment for its Python, and no new account."""
    root, environment = tmp_path / "comfyui", tmp_path / "venv"
    venv.create(environment, with_pip=True)
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    kept = {"PATH": path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    kept |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    for what, said in steps_of_the_image():
        if what == "COPY":
            install_pack(root / "custom_nodes")
        if what != "RUN":
            continue
        said = said.replace(CPU, "https://pypi.org/simple")
        said = said.replace("/comfyui", str(root)).replace("/tmp/carrier", f"{tmp_path}/carrier")
        said = re.sub(r"useradd \S+ --uid 990 comfyui", "true", said)
        said = said.replace("root:comfyui", "0:990").replace("chown comfyui", "chown 990")
        done = subprocess.run(["sh", "-euc", said], env=kept, capture_output=True, text=True)
        assert done.returncode == 0, (said, done.stdout[-2000:], done.stderr[-2000:])
    settings = root / "user" / "modular-safety-lora.json"
    settings.write_text('{"require_audt": true}')
    (start,) = [json.loads(said) for what, said in steps_of_the_image() if what == "CMD"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "log").open("wb")
    who = {"user": 990, "group": 990, "extra_groups": ()} if os.getuid() == 0 else {}
    tmp_path.chmod(0o755)
    for each in (tmp_path.parent, tmp_path.parent.parent):
        each.chmod(0o755)
    command = [str(environment / "bin" / start[0]), *start[1:], "--port", str(port)]
    running = subprocess.Popen(command, cwd=root, env=kept, stdout=log, stderr=log, **who)
    try:
        for _ in range(300):
            try:
                assert requests.get(f"http://127.0.0.1:{port}/system_stats", timeout=5).ok
                break
            except requests.ConnectionError:
                assert running.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.5)
        info = requests.get(f"http://127.0.0.1:{port}/object_info/MSL_ModularMerge", timeout=30)
        assert "MSL_ModularMerge" in info.json()
        said = (tmp_path / "log").read_text()
        assert "require_audt" in said and "No model samples until it is corrected" in said
    finally:
        running.terminate()
        running.wait(30)
    if not who:
        return
    for attempt in ("open(F, 'w')", "os.remove(F)", "os.replace(F + '.new', F)"):
        (root / "user" / f"{settings.name}.new").touch()
        code = f"import os; F = {str(settings)!r}; {attempt}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, **who)
        assert b"PermissionError" in done.stderr, attempt
