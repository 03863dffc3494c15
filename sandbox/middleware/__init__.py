"""Middleware of every call: audit log, body limit, failures, faults, calls in flight."""
