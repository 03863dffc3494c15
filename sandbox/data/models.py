"""The database: tables, and sessions that read or write them."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar
from uuid import uuid4

from sqlalchemy import (
    JSON,
    Connection,
    Dialect,
    ForeignKey,
    LargeBinary,
    String,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    false,
    inspect,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateColumn

CONNECTIONS = 50
"""More than the threads that serve requests and process jobs."""
WRITE_LOCK = 7878


def new_id() -> str:
    """Return a random UUID."""
    return str(uuid4())


def now() -> datetime:
    """Return the time in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A UTC time as ISO 8601 text, since SQLite stores no time zones."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return value.isoformat() if value else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return datetime.fromisoformat(value) if value else None


Created = Annotated[datetime | None, mapped_column(default=now)]
Updated = Annotated[datetime | None, mapped_column(default=now, onupdate=now)]
"""Times of a row; None if an earlier version has made it, until it is changed."""


class Base(DeclarativeBase):
    """The base of all tables."""

    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        bytes: LargeBinary,
    }


class Account(Base):
    """An account of the service.

    `wrapped_key` is its profile key, encrypted with the service's master key; `quota` the messages
    it may generate and publish in one window, None for any number.
    """

    __tablename__ = "accounts"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    api_key: Mapped[str] = mapped_column(unique=True)
    wrapped_key: Mapped[bytes]
    quota: Mapped[int | None]


class Usage(Base):
    """What an account has used in one window of its quota: `generated` messages and published
    `messages`.
    """

    __tablename__ = "usage"
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    window: Mapped[int] = mapped_column(primary_key=True)
    messages: Mapped[int]
    generated: Mapped[int] = mapped_column(server_default="0")

    @property
    def total(self) -> int:
        """Return the messages that count against the quota."""
        return self.generated + self.messages


class User(Base):
    """A user of an account."""

    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    role_code: Mapped[str] = mapped_column(default="admin")


class Workspace(Base):
    """A workspace of an account."""

    __tablename__ = "workspaces"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]


class Field(Base):
    """A field of a workspace; `number` is the order of creation."""

    __tablename__ = "fields"
    __table_args__ = (UniqueConstraint("workspace_id", "field_name"),)
    number: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    field_name: Mapped[str]
    display_name: Mapped[str]
    field_type: Mapped[str]
    field_format: Mapped[str | None]
    required: Mapped[bool]
    unique: Mapped[bool]


class Group(Base):
    """A customer group of a workspace."""

    __tablename__ = "groups"
    __table_args__ = (UniqueConstraint("workspace_id", "name"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    description: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)


class ProfileChunk(Base):
    """Some customers of a group: a Parquet file, encrypted with the account's profile key."""

    __tablename__ = "blocks"  # as folders that version 0.1 seeded have it, and the next two
    number: Mapped[int] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), index=True)
    size: Mapped[int]
    content: Mapped[bytes]


class Customer(Base):
    """Which chunk a customer is in; `digest` is a keyed hash of group and identifier."""

    __tablename__ = "customers"
    __table_args__: ClassVar = {"sqlite_with_rowid": False}
    digest: Mapped[str] = mapped_column(primary_key=True)
    block_number: Mapped[int] = mapped_column(
        ForeignKey("blocks.number", ondelete="CASCADE"), index=True
    )


class Campaign(Base):
    """A campaign of a workspace.

    `template` is the text that messages are written from, `variables` are the fields that make its
    segments, `exported_run` is the run whose pages are directly in the campaign's folder.
    `group_id` is the group of Run #1, of which there is no other record. `ai` is the rest of its
    `writing.AiConfiguration`, beside the template.
    """

    __tablename__ = "campaigns"
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[str] = mapped_column(ForeignKey("workspaces.id"))
    name: Mapped[str]
    status: Mapped[str]
    current_run: Mapped[int] = mapped_column(default=1)
    exported_run: Mapped[int | None]
    variables: Mapped[list[str]]
    template: Mapped[str]
    start_date: Mapped[date | None]
    end_date: Mapped[date | None]
    published_at: Mapped[datetime | None]
    group_id: Mapped[str | None]
    ai: Mapped[dict[str, Any] | None]
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]


class Run(Base):
    """A run of a campaign; `comparison` is a `contract.SegmentLists`, `summary` has its sizes.

    `charged` says whether its generated messages have been counted against the quota.
    """

    __tablename__ = "runs"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    run_number: Mapped[int] = mapped_column(primary_key=True)
    previous_run: Mapped[int | None]
    status: Mapped[str]
    phase: Mapped[str | None]
    group_id: Mapped[str]
    group_name: Mapped[str]
    segment_count: Mapped[int]
    comparison: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    summary: Mapped[dict[str, Any] | None]
    job_uid: Mapped[str | None]
    initiated_by: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(default=now)
    completed_at: Mapped[datetime | None]
    error: Mapped[str | None]
    charged: Mapped[bool] = mapped_column(default=False, server_default=false())


class Charged(Base):
    """How many messages of a run have been charged when it was published; Run #1 is one, too."""

    __tablename__ = "charged"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    run_number: Mapped[int] = mapped_column(primary_key=True)
    messages: Mapped[int]


class Message(Base):
    """The text of one segment in one run; `segment_key` is a hash of the segment."""

    __tablename__ = "messages"
    campaign_id: Mapped[str] = mapped_column(ForeignKey("campaigns.id"), primary_key=True)
    run_number: Mapped[int] = mapped_column(primary_key=True)
    segment_key: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=new_id)
    segment: Mapped[dict[str, Any]]
    text: Mapped[str]
    review_status: Mapped[str]
    approval_stage: Mapped[str]
    archived: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]


class Job(Base):
    """Background work on one `subject`: the campaign of a *rerun* or *export*, an *upload*'s group.
    It is the user's who has asked for it.

    `state` is queued, running, done, failed (for good) or broken (tried again at the service's next
    start); `note` says how it ended.
    """

    __tablename__ = "jobs"
    number: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(unique=True, default=new_id)
    kind: Mapped[str]
    subject: Mapped[str] = mapped_column(index=True)
    run_number: Mapped[int | None]
    state: Mapped[str] = mapped_column(default="queued", index=True)
    note: Mapped[str | None]
    user_id: Mapped[str | None]
    created_at: Mapped[Created]
    updated_at: Mapped[Updated]


class UploadChunk(Base):
    """Some bytes of a file that waits for its job, encrypted with the account's profile key."""

    __tablename__ = "upload_parts"
    job_uid: Mapped[str] = mapped_column(ForeignKey("jobs.uid"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    content: Mapped[bytes]


class Store:
    """The database of one sandbox, SQLite or PostgreSQL, with one writer at a time."""

    def __init__(self, url: str) -> None:
        self._writing = create_engine(
            url, hide_parameters=True, pool_size=CONNECTIONS, execution_options={"writing": True}
        )
        if self._writing.dialect.name == "sqlite":
            self._reading = self._writing.execution_options(writing=False)
            event.listen(self._writing, "connect", _configure_sqlite)
        else:
            self._reading = self._writing.execution_options(
                writing=False, isolation_level="REPEATABLE READ"
            )
        event.listen(self._writing, "begin", _begin)
        with self._writing.begin() as connection:
            Base.metadata.create_all(connection)
            _add_missing_columns(connection)

    @contextmanager
    def read(self) -> Generator[Session, None, None]:
        """Yield a session that sees the data as they were at its first query."""
        with Session(self._reading) as session:
            yield session

    @contextmanager
    def write(self) -> Generator[Session, None, None]:
        """Yield a session in a transaction that holds the database's only write lock."""
        with Session(self._writing) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._writing.dispose()


def _add_missing_columns(connection: Connection) -> None:
    """Add the columns that the tables of an earlier version lack.

    Each of them may be null or has a default of the database, for the rows that are there.
    """
    missing = [
        (table, column)
        for table in Base.metadata.sorted_tables
        for there in [{each["name"] for each in inspect(connection).get_columns(table.name)}]
        for column in table.columns
        if column.name not in there
    ]
    for table, column in missing:
        added = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {added}")
    if missing:  # first runs were stored, and as if they had ended before they began
        late = Run.started_at > Run.completed_at
        connection.execute(update(Run).where(late).values(started_at=Run.completed_at))


def _configure_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # leave BEGIN to us
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=30000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A read that turns into a write can fail at once in SQLite; a write announces itself instead.
    writing = connection.get_execution_options()["writing"]
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
