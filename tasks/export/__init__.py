"""The export of a run: its messages fetched, verified and committed to the lake."""
