"""What is old, and its removal."""
