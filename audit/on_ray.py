"""Ray, for audits that one machine is too small for: its start, and seats on it."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

from ..options.errors import PackError

# where Ray's processes find the pack when it is no package there (its docstring says why)
BY_PATH = Path(__file__).resolve().parents[1] / "commands" / "by_path"
TOLD = ("OMP_NUM_THREADS",)  # of the environment here, there too


class RayMissing(PackError, ImportError):
    """Ray is not installed."""


@contextlib.contextmanager
def connected(workers: int, address: str) -> Iterator[ModuleType]:
    """Ray at an address; `local` means one of this machine, for so many workers.

    Every node needs this pack, installed or in the same folder, and the files under the same paths.
    Raises RayMissing.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RayMissing(
            f"Ray can't be imported ({error}). pip install 'ray[data]', or leave --ray out."
        ) from error
    here = not ray.is_initialized()
    if here:
        searched = os.pathsep.join([str(BY_PATH), os.environ.get("PYTHONPATH", "")])
        told = {name: os.environ[name] for name in TOLD if name in os.environ}
        ray.init(
            **({"num_cpus": workers} if address == "local" else {"address": address}),
            runtime_env={"env_vars": {"PYTHONPATH": searched.rstrip(os.pathsep), **told}},
            log_to_driver=False,
        )
    try:
        yield ray
    finally:
        if here:
            ray.shutdown()


class RaySeat:
    """A seat for an actor: on a GPU, or a share of one when there are more workers than GPUs."""

    def __init__(self, ray: ModuleType, workers: int):
        self.ray = ray
        fails = ray.exceptions
        self.deaths: tuple[type[BaseException], ...] = (
            fails.RayActorError,
            fails.WorkerCrashedError,
            fails.ObjectLostError,
            fails.OutOfMemoryError,
        )
        cards = int(ray.cluster_resources().get("GPU", 0))
        share = 1 / -(-workers // cards) if cards else 0
        self.actor = ray.remote(_Worker).options(num_cpus=1, num_gpus=share).remote()

    def submit(self, work: Callable[..., Any], *given: object) -> "Future[Any]":
        found: Future[Any] = Future()

        def tell(done: "Future[Any]") -> None:
            error = done.exception()
            if error is None:
                found.set_result(done.result())
            else:  # what the work raised, without Ray's account of it
                found.set_exception(getattr(error, "cause", error))

        self.actor.do.remote(work, *given).future().add_done_callback(tell)
        return found

    def close(self) -> None:
        self.ray.kill(self.actor)


class _Worker:
    def do(self, work: Callable[..., Any], *given: object) -> Any:
        return work(*given)
