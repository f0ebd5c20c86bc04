"""The parts of the demo that need no server: photographs audited, compared, and as a page."""

import pytest
from modular_safety_lora.lab.demo import audits


@pytest.mark.slow
def test_photographs_are_audited_and_compared_and_the_page_is_written(tmp_path):
    files = audits.compared(tmp_path) + audits.folder_report(tmp_path)
    assert files and all(file.stat().st_size for file in files)
    assert "NudeNet" in (tmp_path / "folder-audit.html").read_text(encoding="utf-8")
