"""The Nudgescribe API: its wire, its client, its rules. Knows nothing of Prefect."""

__version__ = "0.2.0.dev0"
