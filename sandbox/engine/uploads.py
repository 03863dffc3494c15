"""Uploads of customers: checked as a whole, then row by row, and upserted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from cryptography.fernet import Fernet
from fastapi import HTTPException
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from nudgescribe import fields, rfc4180
from nudgescribe.contract import RowError, WorkspaceField
from nudgescribe.errors import first_ten
from nudgescribe.rfc4180 import Readable
from sandbox.context import Context
from sandbox.data.models import Group, Job, UploadChunk
from sandbox.data.profiles import Profiles
from sandbox.errors import JobFailed

Frames = Callable[[], Iterator[pl.DataFrame]]
"""Returns a list's rows from the first one, each time it is called."""

UPLOAD = "upload"
MAX_ROWS_NAMED = 100
MAX_HEADER_PROBLEMS = 10
CHUNK_BYTES = 1024 * 1024
"""How much of a file is in memory at a time, in a few copies."""


def read_frames(file: Readable) -> Iterator[pl.DataFrame]:
    """Yield a CSV's rows chunk by chunk. Raises MalformedCsv."""
    return rfc4180.frames(file, CHUNK_BYTES)


class Tally:
    """Counts of an upload's accepted and rejected rows, and its first errors."""

    def __init__(self) -> None:
        self.total = self.accepted = self.rejected = 0
        self.errors: list[RowError] = []
        self._named: set[int] = set()

    def add(self, frame: pl.DataFrame, validation: fields.Validation) -> None:
        """Count the rows of the next frame."""
        for row, field, code in validation.errors.iter_rows():
            number = self.total + row + 1
            if len(self._named | {number}) > MAX_ROWS_NAMED:
                break
            self._named.add(number)
            reason = fields.REASONS[code]
            self.errors.append(RowError(row=number, field=field, code=code, message=reason))
        self.total += frame.height
        self.accepted += validation.accepted.height
        self.rejected += validation.rejected_rows


def check_list(frames: Frames, rules: Sequence[WorkspaceField]) -> pl.Series:
    """Check the columns of a list; return the identifiers that it has more than once.

    Raises HTTPException, 400, if the columns are not the workspace's or the file is no CSV.
    """
    key = fields.key_of(rules)
    try:
        columns = next(frames()).columns
        if problems := fields.header_problems(columns, rules, certain=True):
            more = (
                [f"{len(problems) - MAX_HEADER_PROBLEMS:,} more"]
                if len(problems) > MAX_HEADER_PROBLEMS
                else []
            )
            raise HTTPException(400, f"{'; '.join([*problems[:MAX_HEADER_PROBLEMS], *more])}.")
        with TemporaryDirectory() as folder:
            return fields.duplicate_ids(lambda: (frame[key] for frame in frames()), Path(folder))
    except rfc4180.RepeatedColumns as error:
        names = first_ten(error.names)
        raise HTTPException(400, f"The CSV names these columns more than once: {names}.") from None
    except rfc4180.MalformedCsv as error:
        raise HTTPException(400, error.problem) from None


def accepted_rows(
    frames: Iterable[pl.DataFrame],
    rules: Sequence[WorkspaceField],
    repeated: pl.Series,
    tally: Tally,
) -> Iterator[pl.DataFrame]:
    """Yield the accepted rows of each frame; count all of them in the tally."""
    for frame in frames:
        validation = fields.validate(frame, rules, repeated)
        tally.add(frame, validation)
        yield validation.accepted


def queue(session: Session, profiles: Profiles, group_id: str, file: Readable, user_id: str) -> str:
    """Store a file, encrypted, and queue its job for the user. Return the job's uid."""
    job = Job(kind=UPLOAD, subject=group_id, user_id=user_id)
    session.add(job)
    session.flush()
    for number, content in enumerate(iter(lambda: file.read(CHUNK_BYTES), b"")):
        chunk = {"job_uid": job.uid, "number": number, "content": profiles.cipher.encrypt(content)}
        session.execute(insert(UploadChunk), chunk)
    return job.uid


def run_job(context: Context, job_uid: str, group_id: str) -> str:
    """Upsert a stored file chunk by chunk, and delete it; return the counts of its rows.

    Running it again has the same result. Raises JobFailed if the group is gone or the file does not
    fit the workspace's fields; after any other error the file stays for another attempt.
    """
    try:
        counts = _upsert(context, job_uid, group_id)
    except JobFailed:
        _delete_file(context, job_uid)
        raise
    _delete_file(context, job_uid)
    return counts


def _upsert(context: Context, job_uid: str, group_id: str) -> str:
    with context.store.read() as session:
        if session.get(Group, group_id) is None:
            raise JobFailed("The customer group is gone.")
        profiles = Profiles(session, context.keys, group_id)
        rules, cipher = profiles.rules, profiles.cipher

    def frames() -> Iterator[pl.DataFrame]:
        return read_frames(_QueuedFile(context, job_uid, cipher))

    try:
        repeated = check_list(frames, rules)
    except HTTPException as error:  # the fields have changed since the file was stored
        raise JobFailed(error.detail) from None
    tally = Tally()
    for accepted in accepted_rows(frames(), rules, repeated, tally):
        with context.store.write() as session:
            if session.get(Group, group_id) is None:
                raise JobFailed("The customer group is gone.")
            Profiles(session, context.keys, group_id).upsert(accepted)
    return f"{tally.accepted:,} of {tally.total:,} rows accepted, {tally.rejected:,} rejected."


def _delete_file(context: Context, job_uid: str) -> None:
    with context.store.write() as session:
        session.execute(delete(UploadChunk).where(UploadChunk.job_uid == job_uid))


class _QueuedFile:
    """The stored file of a queued upload, read chunk by chunk."""

    def __init__(self, context: Context, job_uid: str, cipher: Fernet) -> None:
        self._context = context
        self._job_uid = job_uid
        self._cipher = cipher
        self._next = 0

    def read(self, size: int, /) -> bytes:
        """Return the next chunk, whatever its size; empty at the end of the file."""
        with self._context.store.read() as session:
            chunk = session.get(UploadChunk, (self._job_uid, self._next))
        self._next += 1
        return self._cipher.decrypt(chunk.content) if chunk else b""
