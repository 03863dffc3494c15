"""Prefect tasks over the blocks; they take and return references, never rows."""

from tasks.telemetry import start

# Prefect opens a flow run's span before it calls the flow, and workers of a cluster import no flow.
start()
