"""Stored data: tables, customer profiles, page files."""
