"""Writers of messages, and the templates they write from."""
