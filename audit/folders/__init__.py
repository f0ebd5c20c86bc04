"""Long audits: files of any number, in worker processes, with rows that a killed run goes on from."""
