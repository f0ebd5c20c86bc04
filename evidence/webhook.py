"""One address that is told of refusals and flagged pictures: each line of the log, signed.

    POST <url>
    Content-Type: application/json
    X-MSL-Signature: sha256=<HMAC-SHA256 of the body, with the operator's secret>

The body is the line, whose number and time show what was sent before; one that is tried again may
arrive twice. This is the pack's only way to the network, and off until an operator names an
address: no proxy, no redirect, three seconds.
"""

import hmac
import http.client
import logging
import queue
import threading
import time
from urllib.parse import urlsplit

from ..storage.faults import told
from .figures import FLAGGED, REFUSALS, counts
from .lines import Line
from .log import Log

logger = logging.getLogger(__name__)
TIMEOUT = 3.0  # seconds
WAITING = 100  # lines: what comes when so many wait is dropped
AGAIN = (1.0, 5.0, 25.0)  # seconds before it is tried again
PASSING = frozenset({408, 429, *range(500, 600)})  # answers that may be others the next time
SIGNATURE = "X-MSL-Signature"


class Webhook:
    """Sends in a thread of its own; `dropped` counts what did not arrive, for whatever reason."""

    def __init__(self, url: str, secret: bytes) -> None:
        self.url, self.secret = url, secret
        self.sent = self.dropped = 0
        self._waiting: queue.Queue[bytes] = queue.Queue(WAITING)
        threading.Thread(target=self._send_all, name="msl-webhook", daemon=True).start()

    def tell(self, line: Line, log: Log) -> None:
        if not {REFUSALS, FLAGGED} & (+counts(line)).keys():
            return
        try:
            self._waiting.put_nowait(line.raw)
        except queue.Full:
            self._drop(f"{WAITING} wait already")

    def _drop(self, why: str) -> None:
        self.dropped += 1
        logger.warning("The webhook was not told (%s); %d lines so far.", why, self.dropped)

    def _send_all(self) -> None:
        while True:
            body = self._waiting.get()
            why, again = self._tried(body)
            for pause in AGAIN:
                if not again:
                    break
                time.sleep(pause)
                why, again = self._tried(body)
            if why:
                self._drop(why)
            else:
                self.sent += 1

    def _tried(self, body: bytes) -> tuple[str, bool]:
        """(why it did not arrive, whether it may the next time)."""
        try:
            status = self._send(body)
        except (OSError, http.client.HTTPException) as error:
            return told(error) or type(error).__name__, True
        arrived = 200 <= status < 300
        return "" if arrived else f"it answered {status}", status in PASSING

    def _send(self, body: bytes) -> int:
        place = urlsplit(self.url)
        https = place.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        connection = kind(place.hostname or "", place.port, timeout=TIMEOUT)
        path = (place.path or "/") + (f"?{place.query}" if place.query else "")
        try:
            connection.request("POST", path, body, headers(self.secret, body))
            return connection.getresponse().status
        finally:
            connection.close()


def headers(secret: bytes, body: bytes) -> dict[str, str]:
    signed = hmac.new(secret, body, "sha256").hexdigest()
    return {"Content-Type": "application/json", SIGNATURE: f"sha256={signed}"}
