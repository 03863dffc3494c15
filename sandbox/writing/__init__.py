"""Who writes messages, and the templates they write from."""
