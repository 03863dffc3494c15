"""Customer lists from files, on any file system."""
