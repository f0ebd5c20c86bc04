"""The folder audit on a cluster: Ray Data audits windows of files, which the store keeps."""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ...options.errors import PackError
from ...options.words import amount
from ..rules import Rules
from .store import batched
from .workers import CHUNK, Row, audit_files, audit_parallel

logger = logging.getLogger(__name__)

WINDOW = 100_000  # files that Ray is given at a time
# where Ray's processes find the pack when it is no package there (its docstring says why)
BY_PATH = Path(__file__).resolve().parents[2] / "commands" / "by_path"


class RayMissing(PackError, ImportError):
    """Ray Data is not installed."""


class Auditor:
    """What Ray runs on each batch.

    Every node needs this pack, installed or in the same folder, and the files under the same paths.
    """

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
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RayMissing(
            f"Ray Data can't be imported ({error}). pip install 'ray[data]', or leave --ray out."
        ) from error
    here = not ray.is_initialized()
    if here:
        _start(ray, workers, address)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
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
    finally:
        if here:
            ray.shutdown()


def _start(ray: ModuleType, workers: int, address: str) -> None:
    searched = os.pathsep.join([str(BY_PATH), os.environ.get("PYTHONPATH", "")])
    ray.init(
        **({"num_cpus": workers} if address == "local" else {"address": address}),
        runtime_env={"env_vars": {"PYTHONPATH": searched.rstrip(os.pathsep)}},
        log_to_driver=False,
    )


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
