"""One refresh: claimed, previewed, re-run, reviewed, reported."""
