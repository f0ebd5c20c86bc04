"""The rows of the suite: a line of JSON each."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Store:
    """Rows by what they are of, in one file that is only ever added to."""

    file: Path

    def __post_init__(self):
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        self.rows = {(row := json.loads(line))["key"]: row for line in lines}

    def add(self, key: str, row: dict) -> None:
        self.rows[key] = {"key": key, **row}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.rows[key]) + "\n")
