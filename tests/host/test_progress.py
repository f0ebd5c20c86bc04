"""How far a node is, as ComfyUI's own server tells it the frontend."""

import asyncio

import comfy.model_management
import pytest
import server
from comfy_execution.utils import CurrentNodeContext
from modular_safety_lora.nodes import progress
from modular_safety_lora.nodes.training import OnNode
from modular_safety_lora.options import words
from modular_safety_lora.options.words import Pace, span
from modular_safety_lora.training.engine.checkpoint import Progress


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (3540, "59 min"), (3599, "1 h 0 min")],
)
def test_a_time_is_said_in_seconds_minutes_or_hours(seconds, said):
    assert span(seconds) == said


def test_the_time_left_is_at_the_pace_of_this_run_alone(monkeypatch):
    now = iter([100.0, 110.0, 130.0, 200.0])
    monkeypatch.setattr(words.time, "monotonic", lambda: next(now))
    pace = Pace(100)
    said = [pace.left(done) for done in (40, 45, 55, 100)]
    assert said == ["", ", 2 min left", ", 90 s left", ""], "forty were there, and are no pace"


@pytest.fixture
def sent(monkeypatch):
    """What a real server was told to send as texts, read by calling it."""
    monkeypatch.setattr(server.PromptServer, "instance", None, raising=False)
    loop = asyncio.new_event_loop()
    host = server.PromptServer(loop)

    def read() -> list[str]:
        loop.run_until_complete(asyncio.sleep(0))
        messages = [host.messages.get_nowait()[1] for _ in range(host.messages.qsize())]
        return [each[4:].decode() for each in messages if isinstance(each, bytes)]

    yield read
    loop.close()


def test_a_node_says_how_far_it_is_and_ends_on_cancel(sent, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with CurrentNodeContext("prompt", "7"):
        meter = progress.Meter("picture", 3)
        for done in range(4):
            meter(done)
    texts = sent()
    assert texts[0] == "7picture 0 of 3" and texts[-1] == "7picture 3 of 3"
    assert texts[1].startswith("7picture 1 of 3, ") and texts[1].endswith(" s left")
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        meter(1)


def test_a_training_node_says_all_the_time_which_pictures_have_no_caption(sent):
    with CurrentNodeContext("prompt", "7"):
        meter = OnNode(2, "7", ["1 of 2 pictures without a caption"])
        assert meter(Progress(0)) and meter(Progress(2))
    first, last = sent()
    assert first.endswith("\n1 of 2 pictures without a caption") and first.startswith("7")
    assert last.endswith("\n1 of 2 pictures without a caption")
