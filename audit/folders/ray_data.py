"""The folder audit on a cluster: Ray Data audits windows of files, which the store keeps."""

import json
import logging
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from PIL import Image

from ...options.words import amount
from ..on_ray import connected
from ..rules import Rules
from .store import batched
from .workers import CHUNK, Row, audit_files, audit_parallel

logger = logging.getLogger(__name__)

WINDOW = 100_000  # files that Ray is given at a time


class Auditor:
    """What Ray runs on each batch."""

    def __init__(self, rules: Rules, marked: str | None):
        Image.MAX_IMAGE_PIXELS = None
        self.rules, self.marked = rules, marked

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        files = list(zip(batch["key"].tolist(), batch["stamp"].tolist(), strict=True))
        rows = audit_files(files, self.rules, self.marked)
        return {
            "key": [key for key, _, _ in rows],
            "stamp": [stamp for _, stamp, _ in rows],
            "data": [json.dumps(data, ensure_ascii=False) for _, _, data in rows],
        }


def audit_on_ray(
    files: Iterable[tuple[str, str]],
    rules: Rules,
    workers: int,
    address: str,
    marked: str | None = None,
) -> Iterator[list[Row]]:
    """Rows of the files as they are done, from `workers` actors of the Ray at `address`.

    The address `local` means a Ray of this machine. When Ray gives up on a window, a file may have
    killed its actors; processes here do the rest, and find it.
    """
    with connected(workers, address) as ray:
        ray.data.DataContext.get_current().enable_progress_bars = False
        for window in batched(files, WINDOW):
            left = dict(window)
            try:
                for rows in _window(ray, window, rules, workers, marked):
                    for key, _, _ in rows:
                        del left[key]
                    yield rows
            except ray.exceptions.RayError as error:
                logger.warning(
                    "Ray gave up (%s); %s are audited here instead",
                    str(error).splitlines()[0],
                    amount(len(left), "file"),
                )
                yield from audit_parallel(left.items(), rules, workers, marked)


def _window(
    ray: ModuleType, window: list[tuple[str, str]], rules: Rules, workers: int, marked: str | None
) -> Iterator[list[Row]]:
    items = ray.data.from_items([{"key": key, "stamp": stamp} for key, stamp in window])
    done = items.map_batches(
        Auditor,
        fn_constructor_args=(rules, marked),
        batch_size=CHUNK,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    for batch in done.iter_batches(batch_size=CHUNK):
        yield [
            (key, stamp, json.loads(data))
            for key, stamp, data in zip(batch["key"], batch["stamp"], batch["data"], strict=True)
        ]
