"""What flows share: preparation, review gate, fetching, finish."""
