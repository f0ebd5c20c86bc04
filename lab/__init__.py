"""What makes and measures, and is not shipped: small seeded models, the live server, demo,
benchmarks.
"""
