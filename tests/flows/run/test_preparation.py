import pytest

from flows.run.preparation import released_on_failure


def test_what_went_wrong_first_is_told() -> None:
    released: list[str] = []

    def fails() -> None:
        released.append("once")
        raise OSError("the lake is away")

    with pytest.raises(ValueError, match="first"), released_on_failure(fails):
        raise ValueError("first")
    assert released == ["once"]
    with released_on_failure(fails):
        pass
    assert released == ["once"]
