"""Entries, owners and the journals of flow runs."""
