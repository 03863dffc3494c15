"""Customer lists from files on any fsspec file system."""
