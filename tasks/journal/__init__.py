"""The journal: what a flow run has done, written down in the lake step by step."""
