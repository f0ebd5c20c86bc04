"""Modular Merge: changes of weights, what is left of each safety module, and the lock that holds
them.
"""
