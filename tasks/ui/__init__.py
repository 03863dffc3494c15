"""Shown to people: artifacts, assets, events and labels in Prefect; progress on a terminal."""
