"""`python -m tests.conformance` writes CONFORMANCE.md from the tests' statements."""

from tests.conformance import FILE, document

if __name__ == "__main__":
    FILE.write_text(document())
