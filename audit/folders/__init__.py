"""Audits of any number of files, in worker processes, with rows that a killed run goes on from."""
