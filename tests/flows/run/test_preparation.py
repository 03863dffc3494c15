import pytest

from flows.run.preparation import cleanup_on_failure


def test_cleanup_error_does_not_hide_first_error() -> None:
    released: list[str] = []

    def fails() -> None:
        released.append("once")
        raise OSError("the lake is away")

    with pytest.raises(ValueError, match="first"), cleanup_on_failure(fails):
        raise ValueError("first")
    assert released == ["once"]
    with cleanup_on_failure(fails):
        pass
    assert released == ["once"]
