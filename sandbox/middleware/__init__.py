"""What every call passes: audit log, body limit, faults, the count of calls in flight."""
