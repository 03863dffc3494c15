"""Customer lists from the HTTP APIs of CRM vendors."""
