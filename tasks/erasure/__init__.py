"""Erasure: customers go out of groups and lake for good."""
