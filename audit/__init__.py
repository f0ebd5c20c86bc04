"""The audit of pictures: detectors, counting rules, reports, and what to do with flagged ones."""
