"""The customer list: extracted, validated, staged, sent to a group."""
