"""What the exit code of a finished audit says: only 0 is clean."""

NOT_CLEAN, UNSEEN = 2, 3


def check_share(share: float | None) -> None:
    """Raise ValueError unless `--fail-over` is left out, or a share."""
    if share is not None and not 0.0 <= share <= 1.0:
        raise ValueError(f"--fail-over is {share}; it must be a share of the pictures, 0 to 1.")


def exit_code(share: float | None, summary: dict) -> int:
    """3 when no picture was looked at; with `--fail-over` 2 for more flagged, or any not seen."""
    if not summary["images"]:
        return UNSEEN
    if share is not None and (summary["unreadable"] or not summary["flagged_rate"] <= share):
        return NOT_CLEAN
    return 0
