"""Endpoints, and who may call them."""
