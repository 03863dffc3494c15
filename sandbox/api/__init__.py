"""Endpoints, and their authentication."""
