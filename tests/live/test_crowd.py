"""Many clients of a locked-down server: what leaves was looked at, every prompt is in the log."""

import asyncio
import collections
import io
import random
import time

import numpy as np
import psutil
import pytest
import requests
from crowd import Crowd, digest, is_notice
from graphs import ENDED, Graphs
from locked_down import Listener, locked_down, serving
from modular_safety_lora.audit.presets import PRESETS
from modular_safety_lora.audit.report import audit
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.verify import read_lines, verify
from PIL import Image

USERS = ("anna", "ben", "eve", "mallory")
MB = 2**20


@pytest.fixture
def place(models, tmp_path):
    """A folder that everything is asked for in, and who is told by the webhook."""
    heard = Listener()
    yield locked_down(tmp_path / "host", models, heard.url), heard
    heard.server.shutdown()


@pytest.fixture
def graphs(shipped_prompt):
    return Graphs(shipped_prompt)


def checked(folder, crowd: Crowd) -> collections.Counter:
    """Hold what the clients saw against the log; how many of each state."""
    log = folder / "user" / FOLDER
    found = verify(log)
    assert found.whole, found.faults
    states, passed = collections.defaultdict(list), set()
    for line in read_lines(log):
        facts = line.facts
        if line.kind == "prompt":
            states[facts["prompt_id"]].append((facts["state"], facts["client"], facts["user"]))
        elif line.kind == "verdict" and facts["done"] == "passed":
            passed.add(facts["digest"])
    for each in crowd.sent:
        told = states[each.number]
        assert all(whose == [each.client, each.user] for _, *whose in told), each
        if each.end:
            assert each.end == ENDED[each.kind], each
            expected = ["invalid"] if each.end == "invalid" else ["queued", each.end]
            assert [state for state, *_ in told] == expected, each
        elif each.answered:
            assert told and told[0][0] == "queued", each
    for how, content, said in crowd.left:
        assert said or digest(content) in passed or (how == "socket" and is_notice(content)), how
    shown = {digest(content): content for _, content, _ in crowd.left}
    pictures = [np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in shown.values()]
    assert not any(each["flagged"] for each in audit(iter(pictures), PRESETS["faces"])["images"])
    return collections.Counter(each.end or "cut off" for each in crowd.sent)


def held_by(server) -> int:
    """The memory of a server's process, in MB."""
    return round(psutil.Process(server.process.pid).memory_info().rss / MB)


async def together(
    crowd: Crowd, server, users: list[str], kinds: list[str], graphs: Graphs
) -> None:
    """Each client its share of the prompts."""
    jobs = [(kind, getattr(graphs, kind)()) for kind in kinds]
    shares = [jobs[at :: len(users)] for at in range(len(users))]
    await asyncio.gather(
        *(crowd.client(server, user, share) for user, share in zip(users, shares, strict=True))
    )


def enrolled(server) -> list[str]:
    return [
        requests.post(f"{server.url}/users", json={"username": name}, timeout=30).json()
        for name in USERS
    ]


def killed_after(server, seconds: float) -> None:
    time.sleep(seconds)
    server.process.kill()
    server.process.wait()


async def until_killed(crowd: Crowd, server, users: list[str], kinds: list[str], graphs, seconds):
    """What is sent meanwhile is cut off."""
    busy = asyncio.create_task(together(crowd, server, users, kinds, graphs))
    await asyncio.to_thread(killed_after, server, seconds)
    await busy


def test_a_crowd_and_a_kill(place, graphs):
    folder, _ = place
    crowd = Crowd()
    kinds = ["decoded", "unknown", "passed_by", "by_socket", "no_output"]
    with serving(folder) as server:
        users = enrolled(server)[:2]
        asyncio.run(together(crowd, server, users, kinds, graphs))
        asyncio.run(until_killed(crowd, server, users, ["interrupted", "good"], graphs, 0.3))

    counted = checked(folder, crowd)
    assert counted == {"success": 3, "invalid": 2, "cut off": 2}


@pytest.mark.long
def test_two_hundred_prompts_of_several_clients(place, graphs):
    folder, heard = place
    crowd = Crowd()
    kinds = [each for each in ENDED for _ in range(15)]
    random.Random(3).shuffle(kinds)
    held, sizes = [], []
    with serving(folder) as server:
        users = enrolled(server)
        for at in range(0, 200, 50):
            asyncio.run(together(crowd, server, users, kinds[at : at + 50], graphs))
            held.append(held_by(server))
            told = {"unload_models": True, "free_memory": True}  # what ComfyUI keeps of results
            requests.post(f"{server.url}/free", json=told, timeout=30).raise_for_status()
            time.sleep(3)
            sizes.append(held_by(server))
        time.sleep(3)  # the metrics file is written soon
        assert "prompts_ended_total 200" in (folder / "user" / "msl.prom").read_text()
    print("MB after each 50 prompts:", held, "and without what ComfyUI keeps:", sizes)
    counted = checked(folder, crowd)
    print(dict(counted), len(crowd.left), "pictures left")
    assert counted.total() == 200 and not counted["cut off"]
    assert sizes[-1] < sizes[0] * 1.1
    lines = {line.number: line for line in read_lines(folder / "user" / FOLDER)}
    assert heard.told and all(lines[each["line"]].facts == each["facts"] for each in heard.told)


@pytest.mark.long
def test_ten_kills_in_the_middle(place, graphs):
    folder, _ = place
    crowd, chance, users = Crowd(), random.Random(3), []
    for _ in range(10):
        kinds = chance.sample([*ENDED], 8)
        with serving(folder) as server:
            users = users or enrolled(server)
            asyncio.run(crowd.everything(server))
            seconds = chance.uniform(0.3, 12)
            asyncio.run(until_killed(crowd, server, users, kinds, graphs, seconds))
        counted = checked(folder, crowd)
        print(f"{seconds:.1f} s:", dict(counted), verify(folder / "user" / FOLDER).notes[-1:])
    with serving(folder) as server:
        before = len(crowd.sent)
        asyncio.run(together(crowd, server, users, [*ENDED], graphs))
        asyncio.run(crowd.everything(server))
    checked(folder, crowd)
    assert all(each.end for each in crowd.sent[before:]), "it goes on"
