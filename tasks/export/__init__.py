"""A run's messages: fetched, verified, made visible in the lake."""
