"""The command for machines with CUDA: its rows run anywhere, and it says when there is none."""

import json

import pytest
import torch
from modular_safety_lora.lab.gpu import rows
from modular_safety_lora.lab.gpu.__main__ import main


@pytest.mark.long
def test_its_rows_run_and_are_written_as_json_and_as_a_table(tmp_path):
    only = ["--device", "cpu", "--steps", "3", "--only", "Flux, held in fp8"]
    assert main([*only, "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["title"] for row in report["rows"]] == [
        "Train task LoRA",
        "Train safety LoRA",
        "Merge and lock",
    ]
    assert all(row["works"] for row in report["rows"]) and report["machine"]["device"]
    assert report["rows"][2]["streaming"] > 0.99
    assert (tmp_path / "gpu.md").read_text().count("| yes ") == 3


@pytest.mark.long
def test_the_row_of_the_dynamic_patcher_runs_in_a_process_of_its_own(tmp_path):
    only = ["--device", "cpu", "--only", "Flux, nvfp4"]
    assert main([*only, "--output", str(tmp_path)]) == 0
    [row] = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert row["title"] == "Merge, dynamic patcher" and row["brought"] == row["stayed"] > 0.99


def test_a_row_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(rows, "_train_task", broken)
    only = ["--device", "cpu", "--steps", "2", "--only", "QwenImage, held in bfloat16"]
    assert main([*only, "--output", str(tmp_path)]) == 1
    first, *others = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert first["error"] == "RuntimeError: no kernel image" and not first["works"]
    assert all(row["works"] for row in others)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_it_says_so(capsys):
    assert main([]) == 1
    assert "torch finds no CUDA device here" in capsys.readouterr().err
