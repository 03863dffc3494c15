"""The `nudgeflow` command."""
