"""What can be set for one refresh. Never secrets: Prefect stores parameters in clear."""

from string import Formatter

from pydantic import BaseModel, ConfigDict, Field, field_validator

from blocks.manifest import Format

PLACES = {"campaign", "run"}


class RefreshOptions(BaseModel):
    """Settings of one refresh; the defaults suit a scheduled one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Field(default="parquet", description="Files of the lake.")
    group_name: str = Field(
        default="{campaign} {run:%Y-%m-%d %H:%M}",
        description="Name of the customer group: {campaign} is the campaign's name, {run} the time "
        "the flow run was planned for.",
    )
    min_rows: int = Field(default=1, ge=1, description="Fewest good rows to go on with.")
    max_rejected_share: float = Field(
        default=0.05, ge=0, le=1, description="Largest share of rejected rows to go on with."
    )
    rerun_minutes: float = Field(default=240, gt=0, description="Longest wait for the rerun.")
    review_minutes: float = Field(
        default=3 * 24 * 60, gt=0, description="Longest wait for people to approve new messages."
    )
    export_minutes: float = Field(default=60, gt=0, description="Longest wait for the export.")

    @field_validator("group_name")
    @classmethod
    def _only_known_places(cls, template: str) -> str:
        places = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        if places - PLACES:
            raise ValueError("only {campaign} and {run} can stand in a group's name")
        return template
