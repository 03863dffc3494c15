"""The lake kept tidy."""

from prefect import flow

from tasks.retention import Cleaned, clean_lake


@flow(name="lake-retention", flow_run_name="retention-{lake}")
def lake_retention(lake: str = "main", days: float = 7) -> Cleaned:
    """Removes what flow runs left that were killed and never retried, and replaced files of runs.

    Args:
        lake: Name of the data lake block.
        days: What is younger stays; longer than the longest refresh with its review.
    """
    return clean_lake(lake, days)
