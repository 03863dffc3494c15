"""Doubles that several kinds of cases need."""

from tests.blocks.crm.conftest import logged

__all__ = ["logged"]
