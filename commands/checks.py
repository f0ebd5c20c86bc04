"""What is wrong with a command's options and can be known before anything is loaded or written."""

from pathlib import Path


def check_share(share: float | None) -> None:
    """Raise ValueError unless `--fail-over` is left out, or a share."""
    if share is not None and not 0.0 <= share <= 1.0:
        raise ValueError(f"--fail-over is {share}; it must be a share of the pictures, 0 to 1.")


def make_folder(path: Path) -> None:
    """Make the folder of the results. Raises FileExistsError for a file in its place."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; --output must be a folder: give another name.")
    path.mkdir(parents=True, exist_ok=True)


def failed(share: float | None, summary: dict) -> bool:
    """Whether more is flagged than `--fail-over` allows, or something was not looked at."""
    return share is not None and (summary["unreadable"] > 0 or not summary["flagged_rate"] <= share)
