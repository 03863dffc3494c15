"""Base classes for all packages: models that do not change, objects that are closed."""

from abc import ABC, abstractmethod
from typing import Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A model whose fields cannot be set again."""

    model_config = ConfigDict(frozen=True)


class FrozenInput(Frozen):
    """What people write: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Closing(ABC):
    """A context manager that is closed at the end of its block, however that ends."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
