"""A package, so that its tests can share one page (pytest's scope of packages)."""
