"""`python dev.py demo`: the shipped workflow on a live server, with pictures and reports."""
