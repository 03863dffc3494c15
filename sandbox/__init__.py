"""The Nudgescribe service on one machine, for development, tests and rehearsals."""
