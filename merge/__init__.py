"""Modular Merge: changes of weights, what is left of safety modules, the lock that holds them."""
