"""Retention: what is old and not needed is listed, then removed."""
