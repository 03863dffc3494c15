"""Steps and helpers that several flows share."""
