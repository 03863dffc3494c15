"""Customer lists from databases."""
