"""Middleware of every call: audit log, body limit, faults, calls in flight."""
