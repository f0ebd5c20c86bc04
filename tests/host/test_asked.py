"""Every prompt is in the evidence log: what was sent, and how it ended."""

import uuid
from collections import OrderedDict

import execution
import pytest
import requests
from aiohttp.test_utils import make_mocked_request
from gated import House, housed
from modular_safety_lora.evidence.files import FOLDER
from modular_safety_lora.evidence.recorder import recorder
from modular_safety_lora.evidence.verify import read_lines
from modular_safety_lora.nodes import asked, users

GRAPH = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0},
    },
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
Status = execution.PromptQueue.ExecutionStatus
METHODS = ("put", "task_done", "wipe_queue", "delete_queue_item")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A server with the log; its queue's worker is each test."""
    before = touched()
    settings = {"evidence_log": {"addresses": "connection"}}
    with housed(tmp_path_factory.mktemp("house"), settings=settings) as running:
        assert all(now != then for now, then in zip(touched(), before, strict=True))
        yield running
    assert touched() == before


def touched() -> list:
    queue = execution.PromptQueue
    return [execution.validate_prompt, *(getattr(queue, name) for name in METHODS)]


def sent(house: House, graph=GRAPH, headers=None) -> tuple[str, requests.Response]:
    number = str(uuid.uuid4())
    body = {"prompt": graph, "prompt_id": number, "client_id": "c1"}
    return number, requests.post(f"{house.url}/prompt", json=body, headers=headers, timeout=30)


def lines(house: House, number: str) -> list[tuple]:
    found = of_prompt(house, number)
    assert all(each["authenticated"] is False for each in found)
    return [(each["client"], each["state"]) for each in found]


def of_prompt(house: House, number: str) -> list[dict]:
    return [
        each.facts
        for each in read_lines(house.folder / "user" / FOLDER)
        if each.kind == "prompt" and each.facts["prompt_id"] == number
    ]


STATUS = {
    "success": Status("success", True, []),
    "error": Status("error", False, [("execution_error", {})]),
    "interrupted": Status("error", False, [("execution_interrupted", {})]),
}


@pytest.mark.parametrize("end", STATUS)
def test_a_prompt_has_a_line_when_it_is_queued_and_one_when_it_ended(house, end):
    number, answer = sent(house)
    assert answer.ok and lines(house, number) == [("c1", "queued")]
    queue = house.server.prompt_queue
    _, place = queue.get()
    queue.task_done(place, {}, STATUS[end])
    assert lines(house, number) == [("c1", "queued"), ("c1", end)]
    assert number in queue.history


@pytest.mark.parametrize(
    "graph",
    [{"1": {"class_type": "Unknown", "inputs": {}}}, {"1": GRAPH["1"]}, {"1": {"inputs": 3}}],
    ids=["an unknown node", "no output", "no graph"],
)
def test_a_prompt_that_is_not_taken_has_a_line(house, graph):
    number, answer = sent(house, graph)
    assert answer.status_code in (400, 500) and lines(house, number) == [("c1", "invalid")]


def test_prompts_that_are_taken_out_of_the_queue_have_a_line(house):
    numbers = [sent(house)[0] for _ in range(3)]
    told = {"delete": [numbers[1]]}
    requests.post(f"{house.url}/queue", json=told, timeout=30).raise_for_status()
    assert [lines(house, each)[1:] for each in numbers] == [[], [("c1", "removed")], []]
    requests.post(f"{house.url}/queue", json={"clear": True}, timeout=30).raise_for_status()
    assert all(lines(house, each)[1:] == [("c1", "removed")] for each in numbers)
    assert house.server.prompt_queue.get_tasks_remaining() == 0


def test_each_prompt_that_is_taken_out_has_one_line_of_two_with_one_number_too(house):
    number, _ = sent(house)
    body = {"prompt": GRAPH, "prompt_id": number, "client_id": "c1"}
    requests.post(f"{house.url}/prompt", json=body, timeout=30).raise_for_status()
    for removed in (1, 2):
        told = {"delete": [number]}
        requests.post(f"{house.url}/queue", json=told, timeout=30).raise_for_status()
        assert lines(house, number) == [("c1", "queued")] * 2 + [("c1", "removed")] * removed


def test_nobody_sends_a_prompt_under_another_users_number(monkeypatch):
    monkeypatch.setattr(users, "_users", OrderedDict())
    number = str(uuid.uuid4())
    given = {}
    for who in ("anna", "anna", "ben", None):
        users._sender.set(who)
        given[who] = users._note({"prompt_id": number})["prompt_id"]
        assert users.user_of(given[who]) == who
    assert given["anna"] == number and len(set(given.values())) == 3
    assert users.user_of(users._note({})["prompt_id"]) is None
    users._sender.set(None)


def test_what_cannot_be_recorded_is_not_queued_and_the_answer_says_so(house, monkeypatch):
    log = recorder.log
    monkeypatch.setattr(log, "folder", house.folder / "user" / "modular-safety-lora.json")
    _, answer = sent(house)
    assert answer.status_code == 503
    assert "can't write its evidence log" in answer.json()["error"]["message"]
    assert house.server.prompt_queue.get_tasks_remaining() == 0
    _, answer = sent(house, {"1": GRAPH["1"]})
    assert answer.status_code == 400, "what is refused anyway"


SAID = {
    ("connection", None): "127.0.0.1",
    ("connection", "203.0.113.9"): "not known: a proxy sent it",
    ("proxy", None): "not known: it came past the proxy",
    ("proxy", "203.0.113.9"): "203.0.113.9",
    ("proxy", "198.51.100.1, 203.0.113.9"): "203.0.113.9",  # a client wrote the first
}


@pytest.mark.parametrize(("wanted", "header"), SAID)
def test_no_proxys_address_is_taken_for_a_clients(wanted, header):
    request = make_mocked_request(
        "POST", "/prompt", {} if header is None else {"X-Forwarded-For": header}
    ).clone(remote="127.0.0.1")
    assert asked.address_of(request, wanted) == SAID[wanted, header]


def test_the_address_is_in_a_prompts_first_line(house):
    headers = {"X-Forwarded-For": "203.0.113.9"}
    for told, address in (({}, "127.0.0.1"), (headers, "not known: a proxy sent it")):
        for graph in (GRAPH, {"1": GRAPH["1"]}):
            number, _ = sent(house, graph, headers=told)
            (line,) = of_prompt(house, number)
            assert line["address"] == address
