"""Doubles that several kinds of cases need."""

from tests.blocks.crm.conftest import logged, no_waits

__all__ = ["logged", "no_waits"]
