"""Work that processes share: one that dies takes nothing along, and what it died of is found."""

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cli
import pytest
from modular_safety_lora.audit import processes
from modular_safety_lora.audit.crew import TRIES, Crew, Differs, NoStart
from modular_safety_lora.audit.on_ray import RaySeat
from modular_safety_lora.audit.processes import Process

TASKS = range(24)


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """Processes of the kind that the tests' commands are: a new Python takes a second each."""
    monkeypatch.setattr(processes, "CONTEXT", cli.forking())
    yield
    assert not multiprocessing.active_children(), "none outlives its crew"


def nothing() -> None:
    pass


def die(notes: Path, of: str) -> None:
    """End this process, and note of what."""
    (notes / f"{of} {os.getpid()}").touch()
    os._exit(9)


def doubled(notes: Path, task: int) -> int:
    """Its process dies of 5 always, of 11 the first time."""
    if task == 5 or (task == 11 and not list(notes.glob("11 *"))):
        die(notes, f"{task}")
    return 2 * task


def in_fours(tasks=TASKS) -> list[tuple[int, ...]]:
    return [tuple(tasks[at : at + 4]) for at in range(0, len(tasks), 4)]


def crew(begin, do, count=2, open_seat=lambda _: Process(), **more) -> Crew:
    return Crew(open_seat, count, begin, do, **more)


def test_a_process_that_dies_loses_nothing_and_what_kills_three_is_given_up(tmp_path):
    with crew(nothing, partial(doubled, tmp_path)) as some:
        found = list(some.done(in_fours()))
    assert Counter(task for task, _ in found) == Counter(TASKS), "each once, whoever died"
    assert dict(found) == {task: None if task == 5 else 2 * task for task in TASKS}
    died = Counter(path.name.split()[0] for path in tmp_path.iterdir())
    assert died == {"5": TRIES, "11": 1}, "no other task was blamed"


def total(notes: Path, chunk: tuple[int, ...]) -> int:
    if 13 in chunk:
        die(notes, str(len(chunk)))
    return sum(chunk)


def halves(chunk: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    half = len(chunk) // 2
    return (chunk[:half], chunk[half:]) if half else ()


@pytest.mark.long  # of files it is tried in test_folder_workers.py
def test_a_task_of_many_is_halved_until_the_culprit_stands_alone(tmp_path):
    bundles = ((chunk,) for chunk in in_fours())
    with crew(nothing, partial(total, tmp_path), parts=halves) as some:
        found = dict(some.done(bundles))
    assert found.pop((13,)) is None and all(sum(chunk) == each for chunk, each in found.items())
    assert sorted(number for chunk in found for number in chunk) == [n for n in TASKS if n != 13]
    assert len(list(tmp_path.iterdir())) == 2 + TRIES


def own_number(notes: Path) -> dict[str, int]:
    (notes / f"begun {os.getpid()}").touch()
    return {"number": os.getpid()}


def when_all_began(notes: Path, count: int, task: int) -> int:
    while len(list(notes.glob("begun *"))) < count:
        time.sleep(0.01)
    return doubled(notes, task)


def test_all_must_hold_the_same_also_who_replaces_one_that_died(tmp_path):
    for count, tasks in ((2, TASKS[:5]), (1, TASKS)):
        notes = tmp_path / str(count)
        notes.mkdir()
        do = partial(when_all_began, notes, count)
        with crew(partial(own_number, notes), do, count) as some:
            done = []
            with pytest.raises(Differs, match=r"another number \(\d+; .*Finished rows are kept"):
                done.extend(some.done(in_fours(tasks)))
    assert done == [(task, 2 * task) for task in TASKS[:5]]


def wrong(what: str, *_: object) -> None:
    raise FileNotFoundError(what)


def test_what_goes_wrong_in_a_process_is_raised_here(tmp_path):
    for begin, do in ((partial(wrong, "at first"), nothing), (nothing, partial(wrong, "later"))):
        with crew(begin, do) as some, pytest.raises(FileNotFoundError, match="at first|later"):
            list(some.done(in_fours()))
    message = f"died {TRIES} times before it was given anything"
    with (
        crew(partial(die, tmp_path, "start"), nothing) as some,
        pytest.raises(NoStart, match=message),
    ):
        list(some.done(in_fours()))
    assert len(list(tmp_path.glob("start *"))) >= TRIES


def test_only_processes_that_have_work_are_started():
    opened = []

    def open_seat(number: int) -> Process:
        opened.append(number)
        return Process({"MSL_SEAT": str(number)})

    for bundles, count in (([], 0), (in_fours()[:1], 1), (in_fours(), 3)):
        opened.clear()
        with crew(nothing, partial(os.path.join, "a"), 3, open_seat) as some:
            list(some.done([tuple(map(str, bundle)) for bundle in bundles]))
        assert sorted(opened) == list(range(count))
    with crew(partial(os.getenv, "MSL_SEAT"), nothing, 1, open_seat) as some:
        assert some.begun() == "0", "each has an environment of its own"


def test_whoever_leaves_ends_processes_at_work_at_once():
    with crew(nothing, time.sleep) as some:
        some.begun(2)
        tasks = some.done([(0.0, 60.0), (0.0, 60.0)])
        next(tasks)
        started = time.monotonic()
    assert time.monotonic() - started < 10


def on_ray(error: Exception) -> RaySeat:
    """A seat of a Ray whose actor ends whatever it is given with an error."""
    ray = pytest.importorskip("ray")
    answer: Future = Future()
    answer.set_exception(error)
    work = SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: answer))
    actor = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: actor), do=work)
    parts = {"cluster_resources": lambda: {}, "remote": lambda _: actor, "kill": lambda _: None}
    return RaySeat(SimpleNamespace(exceptions=ray.exceptions, **parts), 1)


@pytest.mark.parametrize(
    ("name", "told"),
    [("ActorDiedError", []), ("OutOfMemoryError", ["The node runs low on memory."])],
)
def test_a_process_that_ray_ends_is_one_that_died(name, told):
    ray = pytest.importorskip("ray")
    error = getattr(ray.exceptions, name)(*told)
    seat = on_ray(error)
    assert isinstance(seat.submit(nothing).exception(), seat.deaths)
    cause = FileNotFoundError("no model")
    raised = ray.exceptions.RayTaskError("do", "a traceback", cause).as_instanceof_cause()
    assert on_ray(raised).submit(nothing).exception() is cause
