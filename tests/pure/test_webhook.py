"""The webhook: told of refusals and flagged pictures, signed, tried again, and never waited for."""

import hashlib
import hmac
import http.server
import json
import threading
import time

import pytest
from modular_safety_lora.evidence import webhook
from modular_safety_lora.evidence.log import Log
from modular_safety_lora.evidence.webhook import SIGNATURE, Webhook
from test_evidence_signals import AUDIT, MB, eventually

SECRET = b"0123456789abcdef"


@pytest.fixture
def address():
    """A web server of this machine: (url, what it got, how it answers)."""
    got, answer = [], {"status": 200, "wait": threading.Event()}
    answer["wait"].set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, dict(self.headers), body))
            answer["wait"].wait(10)
            self.send_response(answer["status"])
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?x=1", got, answer
    answer["wait"].set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_webhook_is_told_of_refusals_and_flagged_pictures_and_signs(tmp_path, address):
    url, got, _ = address
    new, hook = Log(tmp_path, MB), Webhook(url, SECRET)
    told = [new.record("refused", {"reason": "NoLock"}), new.record("audited", AUDIT)]
    for line in (new.record("sampled", {}), new.record("audited", {"images": 1, "flagged": 0})):
        hook.tell(line, new)
    for line in told:
        hook.tell(line, new)
    eventually(lambda: hook.sent == 2)
    assert [body for _, _, body in got] == [each.raw for each in told] and not hook.dropped
    for path, headers, body in got:
        assert path == "/hook?x=1" and json.loads(body)["kind"] in ("refused", "audited")
        signed = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
        assert headers[SIGNATURE] == f"sha256={signed}"


def test_a_webhook_that_does_not_answer_blocks_nothing_and_its_drops_are_counted(
    tmp_path, address, caplog, monkeypatch
):
    url, _, answer = address
    monkeypatch.setattr(webhook, "WAITING", 2)
    monkeypatch.setattr(webhook, "AGAIN", ())
    answer["wait"].clear()
    new, hook = Log(tmp_path, MB), Webhook(url, SECRET)
    start = time.monotonic()
    line = new.record("refused", {"reason": "NoLock"})
    for _ in range(10):
        hook.tell(line, new)
    assert time.monotonic() - start < 5, "the address waits ten seconds"
    assert 7 <= hook.dropped <= 8 and "2 wait already" in caplog.text
    answer["wait"].set()
    eventually(lambda: hook.sent + hook.dropped == 10)


def test_a_webhook_that_fails_is_counted_and_follows_no_redirect(
    tmp_path, address, caplog, monkeypatch
):
    url, got, answer = address
    new, hook = Log(tmp_path, MB), Webhook(url, SECRET)
    line = new.record("refused", {"reason": "NoLock"})
    answer["status"] = 307
    hook.tell(line, new)
    eventually(lambda: hook.dropped == 1)
    assert "it answered 307" in caplog.text and len(got) == 1
    monkeypatch.setattr(webhook, "AGAIN", (0.01, 0.02))
    nobody = Webhook("http://127.0.0.1:9/", SECRET)
    nobody.tell(line, new)
    eventually(lambda: nobody.dropped == 1)


def test_a_webhook_that_fails_for_a_while_is_tried_again(tmp_path, address, monkeypatch):
    url, got, answer = address
    monkeypatch.setattr(webhook, "AGAIN", (0.05, 0.1, 0.2))
    new, hook = Log(tmp_path, MB), Webhook(url, SECRET)
    line = new.record("refused", {"reason": "NoLock"})
    answer["status"] = 503
    hook.tell(line, new)
    eventually(lambda: len(got) == 2)
    answer["status"] = 200
    eventually(lambda: hook.sent == 1)
    assert len(got) == 3 and len({body for _, _, body in got}) == 1 and not hook.dropped
    answer["status"] = 429
    hook.tell(line, new)
    eventually(lambda: hook.dropped == 1)
    assert len(got) == 7, "four times, and no more"
