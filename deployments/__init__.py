"""How it runs: the demo, the local stack, and what it takes to bring them up."""
