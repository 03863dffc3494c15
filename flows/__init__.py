"""The flows that people run."""
