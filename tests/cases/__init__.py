"""Small inputs that go wrong in one way each, and what must become of them."""
