"""Counts as people say them."""


def amount(count: int, noun: str, many: str = "") -> str:
    """How many of something: `1 picture`, `2 pictures`, and `2 classes` where that is `many`."""
    return f"{count} {noun if count == 1 else many or f'{noun}s'}"
