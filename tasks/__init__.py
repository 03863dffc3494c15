"""Prefect tasks over the blocks; they take and return references, never rows."""
