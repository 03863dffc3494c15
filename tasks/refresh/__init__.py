"""The steps of a refresh: claimed, previewed, planned, re-run, reviewed, reconciled, reported."""
