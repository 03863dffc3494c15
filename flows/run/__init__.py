"""Steps and helpers that several flows share."""

from flows.run import tracebacks

tracebacks.leave_out()
