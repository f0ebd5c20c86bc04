"""What makes and measures, unshipped: small seeded models, live server, demo, benchmarks."""
