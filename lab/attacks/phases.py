"""What each phase of the suite makes: a row says how much, and with which attackers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One seed's merges."""

    seed: int
    modules: int  # harmless ones
    merges: int  # harmless ones, beside one safety module
    audited: int  # of these
    attackers: tuple[str, ...]


FEW = ("negated", "gauge", "dead", "hostile", "projected", "pictures")
MORE = ("hiding", "fooling", "colluding", "functional", "gated", "triggered", "pictures_apart")
PHASES = {
    "calibrate": Phase(1, modules=14, merges=60, audited=10, attackers=FEW),
    "fresh": Phase(11, modules=16, merges=150, audited=4, attackers=(*FEW, *MORE, "encoder")),
}
