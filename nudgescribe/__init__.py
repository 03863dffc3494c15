"""The Nudgescribe API: its wire, its client, its rules. Knows nothing of Prefect."""
