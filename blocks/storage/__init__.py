"""Files of a lake or a disk: written whole or not at all, read back value by value."""
