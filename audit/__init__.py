"""The nudity audit: detector, counting rules, report, and what to do with a flagged picture. Knows no node."""
