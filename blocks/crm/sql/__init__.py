"""Customer lists from SQL databases."""
