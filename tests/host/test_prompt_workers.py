"""A prompt set over several processes: the results of one, whoever dies, and however often."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import time

import cli
import psutil
import pytest
from killing import LARGE, load_killing
from modular_safety_lora.audit import processes
from modular_safety_lora.audit.crew import Differs
from modular_safety_lora.evaluation import run as evaluation
from modular_safety_lora.evaluation.job import KEEP
from modular_safety_lora.evaluation.run import run
from modular_safety_lora.evaluation.shared import DIED, devices
from modular_safety_lora.lab import assets
from prompt_sets import rows_in
from sharing import job, kill_a_worker, left, prompt_file, shared


@pytest.fixture(autouse=True)
def forked(one_thread, monkeypatch):
    """Workers from one process that has all imported, with as many threads as this one has."""
    monkeypatch.setattr(processes, "CONTEXT", cli.forking())
    yield
    assert not multiprocessing.active_children(), "no worker outlives the run"


@pytest.fixture
def checkpoint_file(models):
    return models / "checkpoints" / assets.CHECKPOINT


def test_two_workers_of_which_one_is_killed_give_the_files_of_one(
    parts, checkpoint_file, tmp_path, monkeypatch
):
    file, seen = prompt_file(tmp_path, 2), []
    run(*parts, job(file, tmp_path / "one"))

    def watch(done, picture):
        seen.append(done)
        if done == 2:
            kill_a_worker()

    monkeypatch.setattr(evaluation, "WINDOW", 2)
    summary = shared(checkpoint_file, job(file, tmp_path / "two", on_picture=watch))
    assert seen == list(range(7)) and summary["images"] == 6
    one, two = left(tmp_path / "one"), left(tmp_path / "two")
    assert one == two and len(one) == 2 + 6


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="no process is killed with its signal there")
def test_a_run_that_is_killed_ten_times_and_goes_on_with_others_gives_the_same_files(
    parts, checkpoint_file, tmp_path
):
    """First the run itself, by force; then ten times a worker; between them all of it stops."""
    file, folder = prompt_file(tmp_path, 20), tmp_path / "killed" / "run"
    run(*parts, job(file, tmp_path / "whole"))
    made_before = killed_with_its_workers(file, checkpoint_file, folder)
    made, dead, dies, stops = [], [], [], []

    class Stopped(Exception):
        pass

    def watch(done, picture):
        made.append(done)
        if done in dies:
            dies.remove(done)
            kill_a_worker(done)
            dead.append(done)
        if done in stops:
            raise Stopped

    for kills, stop in (([8, 13], 15), ([19, 24], 26), ([30, 35], 37), ([41, 46], 48)):
        dies[:], stops[:] = kills, [stop]
        with pytest.raises(Stopped):
            shared(checkpoint_file, job(file, folder, on_picture=watch))
        assert rows_in(folder) == stop and not (folder / "report.json").exists()
    dies[:], stops[:] = [52, 57], []
    shared(checkpoint_file, job(file, folder, on_picture=watch))
    assert len(dead) == 10
    assert sorted(set(made)) == list(range(made_before, 61))
    assert len(made) == 61 - made_before + 4, "nothing is made twice"
    assert left(folder) == left(tmp_path / "whole")


def rows_begun(folder) -> int:
    """How many rows there are; none as long as there is no table of them."""
    try:
        return rows_in(folder) if (folder / "audit.sqlite").exists() else 0
    except sqlite3.OperationalError:
        return 0


def killed_with_its_workers(file, checkpoint_file, folder) -> int:
    """Begin a run of two workers by the verb, and kill it by force; how many rows it leaves."""
    command = ["audit-prompts", "--prompts", file, "--checkpoint", checkpoint_file, "--steps", 1]
    command += ["--preset", "all", "--keep", KEEP[3], "--cfg", 3, "--pictures-per-prompt", 3]
    running = cli.start(*command, "--output", folder, "--workers", 2, env={"OMP_NUM_THREADS": "1"})
    while running.returncode is None and not rows_begun(folder):
        time.sleep(0.02)
    workers = psutil.Process(running.process.pid).children(recursive=True)
    running.kill()
    assert running.returncode == -signal.SIGKILL and len(workers) >= 2
    assert not psutil.wait_procs(workers, 60)[1], "no worker outlives the run"
    assert 0 < rows_in(folder) < 8
    return rows_in(folder)


@pytest.mark.long
def test_a_prompt_that_kills_its_workers_is_a_row_that_says_so_and_is_tried_again(
    checkpoint_file, tmp_path
):
    file, folder = prompt_file(tmp_path, 7, {3: LARGE}), tmp_path / "run"
    for _ in range(2):
        summary = shared(checkpoint_file, job(file, folder, 1), load=load_killing)
        assert (summary["images"], summary["unreadable"]) == (6, 1) and rows_in(folder) == 7
        assert f"(first: 000004, {DIED})" in summary["not_made"]
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    [row] = report["unreadable"]
    assert row["seed"] == 103 and row["reason"] == DIED and "flagged" not in row


@pytest.mark.long
def test_a_worker_that_holds_another_model_ends_the_run_and_adds_no_row(
    parts, checkpoint_file, tmp_path
):
    import comfy.utils
    from safetensors.torch import save_file

    weights = comfy.utils.load_torch_file(str(checkpoint_file))
    name = next(name for name in weights if name.endswith("out.2.weight"))
    save_file(weights | {name: weights[name] * 2}, tmp_path / "other.safetensors")
    link = tmp_path / "model.safetensors"
    assets.link(checkpoint_file, link)
    rows = []

    def watch(done, picture):
        rows.append(done)
        if done == 2:
            link.unlink()
            assets.link(tmp_path / "other.safetensors", link)
            for number in range(2):
                kill_a_worker(number)

    folder = tmp_path / "run"
    with pytest.raises(Differs, match="one holds another model"):
        shared(link, job(prompt_file(tmp_path, 4), folder, on_picture=watch))
    made = job(prompt_file(tmp_path, 4), tmp_path / "whole")
    run(*parts, made)
    pictures, whole = left(folder), left(tmp_path / "whole")
    assert len(pictures) == rows_in(folder) == rows[-1] < 12
    assert pictures.items() <= whole.items(), "what there is was made by the first"


def test_devices_are_those_that_cuda_is_told_of(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert devices() == ["3", "GPU-5"]


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="no process is sent a Ctrl-C there")
def test_the_verb_stops_at_ctrl_c_with_its_workers_and_goes_on_with_more(checkpoint_file, tmp_path):
    file = prompt_file(tmp_path, 10)
    command = ["audit-prompts", "--prompts", file, "--checkpoint", checkpoint_file, "--steps", 1]
    command += ["--preset", "all", "--keep", "all, as they are", "--cfg", 3]
    command += ["--pictures-per-prompt", 3, "--output"]
    threads = {"OMP_NUM_THREADS": "1"}
    folder = tmp_path / "a" / "run"
    running = cli.start(*command, folder, "--workers", 2, env=threads)
    while running.returncode is None and not (folder / "audit.sqlite").exists():
        time.sleep(0.05)
    while running.returncode is None and rows_in(folder) < 3:
        time.sleep(0.05)
    os.kill(running.process.pid, signal.SIGINT)
    done = running.done()
    assert done.returncode == 1 and "the same command continues from here" in done.stderr
    assert 3 <= rows_in(folder) < 30 and not (folder / "report.json").exists()
    done = cli.start(*command, folder, "--workers", 3, env=threads).done()
    assert done.returncode == 0 and "Report: " in done.stdout, done.stderr
    one = tmp_path / "b" / "run"
    assert cli.start(*command, one, env=threads).done().returncode == 0
    assert left(folder) == left(one)
    shutil.rmtree(one)
    done = cli.start(*command, one, "--workers", 0).done()
    assert done.returncode == 1 and "--workers is 0; it must be 1 or more" in done.stderr


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="NO RAY for this Python")
@pytest.mark.long  # Ray starts eight processes
def test_ray_gives_the_files_of_one(parts, checkpoint_file, tmp_path):
    pytest.importorskip("ray")
    from functools import partial

    from modular_safety_lora.evaluation.shared import run_shared
    from modular_safety_lora.host.comfyui import comfyui_path, load_checkpoint

    file = prompt_file(tmp_path, 2)
    run(*parts, job(file, tmp_path / "one"))
    load = partial(load_checkpoint, checkpoint_file)
    run_shared(load, job(file, tmp_path / "ray"), str(comfyui_path()), 2, "local")
    assert left(tmp_path / "one") == left(tmp_path / "ray")
