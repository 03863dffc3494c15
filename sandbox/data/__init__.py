"""What the service stores: tables, customer profiles, page files."""
