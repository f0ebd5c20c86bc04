"""What is made of the log's lines: figures, a page, a file for Prometheus."""

import time
import tracemalloc

import pytest
from modular_safety_lora.evidence.files import file_from, write_head
from modular_safety_lora.evidence.lines import START, new_line
from modular_safety_lora.evidence.log import EvidenceError, Log
from modular_safety_lora.evidence.metrics import Metrics
from modular_safety_lora.evidence.page import page
from modular_safety_lora.evidence.recorder import Recorder
from modular_safety_lora.evidence.summary import summary
from modular_safety_lora.evidence.verify import read_lines, verify
from prometheus_client.parser import text_string_to_metric_families

MB = 2**20
AUDIT = {"images": 4, "flagged": 2, "preset": "strict"}


def spoken(folder) -> Log:
    """A log of something of each kind."""
    new = Log(folder, 64 * MB)
    new.record("started", {"in_force": "require_lock"})
    new.record("sampled", {"user": "anna", "findings": []})
    new.record("sampled", {"user": "<b>eve</b>", "findings": ["undone"]})
    new.record("refused", {"user": "<b>eve</b>", "reason": "NoLock", "message": "no"})
    new.record("refused", {"client": "c1", "reason": 'odd "\n', "message": "no"})
    new.record("probed", {"passed": False})
    new.record("audited", {"user": "anna", "done": "black", **AUDIT})
    new.record("audited", {"user": "anna", "done": "annotate", **AUDIT})
    new.record("verdict", {"flagged": True, "done": "withhold", "preset": "strict"})
    new.record("verdict", {"flagged": False, "done": "none", "preset": "strict"})
    for state in ("queued", "success", "queued", "interrupted", "queued", "invalid"):
        new.record("prompt", {"user": "anna", "state": state})
    return new


def test_the_figures_are_those_of_the_lines(tmp_path):
    new = spoken(tmp_path)
    found = summary(read_lines(tmp_path))
    expected = {
        "starts": 1,
        "prompts": 4,
        "prompts with an end": 3,
        "samplings": 2,
        "samplings with findings": 1,
        "refusals": 2,
        "probes": 1,
        "probes not passed": 1,
        "pictures": 10,
        "flagged": 5,
        "withheld": 3,
    }
    assert {name: found.total[name] for name in expected} == expected
    assert found.unended == 1 and found.users["anna"]["prompts"] == 4
    assert found.reasons == {"NoLock": 1, 'odd "\n': 1}
    assert +found.total == +new.totals
    assert found.users["anna"]["flagged"] == 4 and found.users["c1"]["refusals"] == 1
    (day,) = found.days
    assert found.days[day] == found.total and found.presets["strict"]["withheld"] == 3


def test_the_page_escapes_what_others_wrote_and_says_if_the_log_is_whole(tmp_path):
    spoken(tmp_path)
    whole = page(summary(read_lines(tmp_path)), verify(tmp_path), tmp_path)
    assert "1 prompt without an end: they wait" in whole
    assert "The log is whole." in whole and "checks no password" in whole
    assert "NoLock<td>A model that never went through Modular Merge." in whole
    assert "&lt;b&gt;eve&lt;/b&gt;" in whole and "<b>eve" not in whole
    (tmp_path / "head").unlink()
    broken = page(summary(read_lines(tmp_path)), verify(tmp_path), tmp_path)
    assert "The log is not as it was written." in broken and "The file `head`" in broken


@pytest.mark.parametrize("count", [4000, pytest.param(100_000, marks=pytest.mark.long)])
def test_memory_does_not_grow_with_the_log(tmp_path, count):
    """Lines of 200 bytes, of a thousand users."""
    digest = START
    with file_from(tmp_path, 1).open("wb") as file:
        for number in range(1, count + 1):
            line = new_line(
                number, digest, "sampled", {"user": f"u{number % 1000}", "findings": []}
            )
            file.write(line.raw + b"\n")
            digest = line.digest
    write_head(tmp_path, count, digest)

    def peak(work) -> float:
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1] / MB
        finally:
            tracemalloc.stop()

    assert peak(lambda: verify(tmp_path)) < 1
    assert peak(lambda: summary(read_lines(tmp_path))) < 3
    assert verify(tmp_path).whole and verify(tmp_path).lines == count


def eventually(done, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_prometheus_reads_the_figures(tmp_path):
    new = spoken(tmp_path / "log")
    file = tmp_path / "msl.prom"
    metrics = Metrics(file)
    metrics.tell(new.record("sampled", {}), new)
    eventually(file.exists)
    found = {
        (each.name, each.labels.get("reason")): each.value
        for family in text_string_to_metric_families(file.read_text(encoding="utf-8"))
        for each in family.samples
    }
    assert found["modular_safety_lora_samplings_total", None] == 3
    assert found["modular_safety_lora_refusals_total", "NoLock"] == 1
    assert found["modular_safety_lora_refusals_total", 'odd "\n'] == 1
    assert found["modular_safety_lora_withheld_total", None] == 3
    assert found["modular_safety_lora_log_lines", None] == 18
    assert found["modular_safety_lora_prompts_total", None] == 4
    assert abs(found["modular_safety_lora_log_time_seconds", None] - time.time()) < 60


def test_a_metrics_file_that_can_not_be_written_is_said_and_ends_nothing(tmp_path, caplog):
    new = Log(tmp_path / "log", MB)
    (tmp_path / "file").touch()
    Metrics(tmp_path / "file" / "msl.prom").tell(new.record("sampled", {}), new)
    eventually(lambda: "metrics file can't be written" in caplog.text)


def test_the_recorder_does_nothing_until_it_is_started(tmp_path):
    new = Recorder()
    new.record("sampled", {})
    assert not new.is_on and not list(tmp_path.iterdir())


@pytest.mark.parametrize("required", [True, False])
def test_a_log_that_is_required_stops_what_it_can_not_tell(tmp_path, required, caplog):
    (tmp_path / "log").write_text("in the way")
    new = Recorder()
    new.start(Log(tmp_path / "log", MB), required)
    for _ in range(2):
        if required:
            with pytest.raises(EvidenceError, match="Nothing goes on until it can") as told:
                new.record("sampled", {})
            assert str(tmp_path) not in str(told.value) and str(tmp_path) in caplog.text
        else:
            new.record("sampled", {})
    aloud = [each for each in caplog.records if each.levelname == "ERROR"]
    assert len(aloud) == (2 if required else 1) and new.failures == 2
    (tmp_path / "log").unlink()
    new.record("sampled", {})
    assert verify(tmp_path / "log").whole
    assert required or "2 lines are missing" in caplog.text


def test_a_line_says_who_asked_and_every_signal_is_told(tmp_path):
    told = []

    class Told:
        def tell(self, line, log):
            told.append((line.facts, log.totals["samplings"]))

    new = Recorder()
    new.who = lambda: {"user": "anna", "prompt_id": "p"}
    new.start(Log(tmp_path, MB), True, (Told(),))
    new.record("sampled", {"findings": []})
    assert told == [({"user": "anna", "prompt_id": "p", "findings": []}, 1)]
