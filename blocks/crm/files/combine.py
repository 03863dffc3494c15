"""Files that are one list together."""

from collections.abc import Collection

from blocks.crm.source import Logger, SourceError


def same_columns(name: str, columns: Collection[str], expected: Collection[str]) -> None:
    """Raises SourceError if a file's columns are not those of the first, in any order."""
    missing = [column for column in expected if column not in columns]
    more = [column for column in columns if column not in expected]
    if len(more) == len(columns):
        # Without a header row they are a customer's values: they are not told.
        raise SourceError(f"{name} has no column of the first file: look whether it has a header.")
    if missing or more:
        kinds = (("lacks", missing), ("has in addition", more))
        differences = " and ".join(f"{verb} {', '.join(names)}" for verb, names in kinds if names)
        raise SourceError(f"{name} has other columns than the first file: it {differences}.")


def log_rows(logger: Logger, name: str, form: str, before: int, after: int) -> None:
    """Which rows of the list a file's are, so that a quarantined row is found again."""
    rows = f"rows {before + 1:,} to {after:,} of the list" if after > before else "no rows"
    logger.info("%s: %s, %s", name, form, rows)
