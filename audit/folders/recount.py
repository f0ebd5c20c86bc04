"""Another rule for rows that are there: what was detected is judged again, and no picture is."""

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ..columns import counted
from ..opinion import judge
from ..rules import Rules

BATCH = 500  # rows at a time
Json = dict[str, Any]


def detected(identity: Mapping[str, Any]) -> Json:
    """What of an identity says which detections rows hold: all but how these are counted."""

    def shown(preset: object) -> object:
        if not isinstance(preset, Mapping) or preset.get("ask"):
            return preset  # which pictures another detector was asked about is in the rule
        return preset.get("channel_order")

    second = identity.get("second opinion")
    again = {**second, "preset": shown(second.get("preset"))} if second else second
    return {**identity, "preset": shown(identity.get("preset")), "second opinion": again}


def recount(connection: sqlite3.Connection, rules: Rules) -> int:
    """Judge every row by other rules, within the transaction of the caller; how many there are."""
    last, done = "", 0
    query = "select key, data from pictures where key > ? order by key limit ?"
    while batch := connection.execute(query, (last, BATCH)).fetchall():
        judged = [(key, recounted(json.loads(data), rules)) for key, data in batch]
        connection.executemany(
            "update pictures set flagged = ?, data = ? where key = ?",
            [(row.get("flagged"), json.dumps(row, ensure_ascii=False), key) for key, row in judged],
        )
        last, done = batch[-1][0], done + len(batch)
    return done


def recounted(row: Json, rules: Rules) -> Json:
    """A row by other rules. Its picture, made by the former ones, is left out if they differ."""
    if "unreadable" in row or "other" in row:
        return row
    new = {**row, **judge(row["detections"], rules.preset)}
    if rules.second:
        new["second"] = judge(row["second"]["detections"], rules.second)
    if counted(new) != counted(row):
        new.pop("picture", None)
    return new
