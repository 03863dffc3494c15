"""What people see in Prefect and in a terminal."""
