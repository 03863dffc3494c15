"""Customer files: looked through once, then judged and upserted, at once or in the background."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl
from cryptography.fernet import Fernet
from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from nudgescribe import fields, rfc4180
from nudgescribe.contract import RowError, WorkspaceField
from nudgescribe.rfc4180 import Readable
from sandbox.context import Context
from sandbox.data.models import Group, Job, UploadPart
from sandbox.data.profiles import Profiles
from sandbox.errors import JobFailed, Refusal

Frames = Callable[[], Iterator[pl.DataFrame]]
"""A list's rows from the start, as often as they are asked for."""

UPLOAD = "upload"
ROWS_NAMED = 100
TOLD = 10
"""Problems of a header that are told."""
PIECE_BYTES = 1024 * 1024
"""What is in memory of a file at a time; a few copies of it are."""


def rows(file: Readable) -> Iterator[pl.DataFrame]:
    """A CSV's rows, a piece at a time. Raises MalformedCsv."""
    return rfc4180.frames(file, PIECE_BYTES)


class Tally:
    """What became of a list's rows, so far."""

    def __init__(self) -> None:
        self.total = self.accepted = self.rejected = 0
        self.errors: list[RowError] = []
        self._named: set[int] = set()

    def accept(self, frame: pl.DataFrame, verdict: fields.Verdict) -> None:
        for row, field, code in verdict.errors.iter_rows():
            number = self.total + row + 1
            if len(self._named | {number}) > ROWS_NAMED:
                break
            self._named.add(number)
            reason = fields.REASONS[code]
            self.errors.append(RowError(row=number, field=field, code=code, message=reason))
        self.total += frame.height
        self.accepted += verdict.accepted.height
        self.rejected += verdict.rejected_rows


def repeated_ids(frames: Frames, rules: Sequence[WorkspaceField]) -> pl.Series:
    """What only a look through the whole list tells: the identifiers that it repeats.

    Raises Refusal for columns that are not the workspace's, or for a file that is no CSV.
    """
    key = fields.key_of(rules)
    try:
        columns = next(frames()).columns
        if problems := fields.header_problems(columns, rules):
            more = [f"{len(problems) - TOLD:,} more"] if len(problems) > TOLD else []
            raise Refusal(400, f"{'; '.join([*problems[:TOLD], *more])}.")
        return fields.repeated_ids(lambda: (part[key] for part in frames()))
    except rfc4180.MalformedCsv as error:
        raise Refusal(400, error.problem) from None


def judged(
    frames: Iterable[pl.DataFrame],
    rules: Sequence[WorkspaceField],
    repeated: pl.Series,
    tally: Tally,
) -> Iterator[pl.DataFrame]:
    """The accepted rows of each frame; the tally keeps count."""
    for frame in frames:
        verdict = fields.judge(frame, rules, repeated)
        tally.accept(frame, verdict)
        yield verdict.accepted


def queue(session: Session, profiles: Profiles, group_id: str, file: Readable) -> str:
    """Keeps a file, encrypted, for its job. Returns the job's uid."""
    job = Job(kind=UPLOAD, subject=group_id)
    session.add(job)
    session.flush()
    for number, content in enumerate(iter(lambda: file.read(PIECE_BYTES), b"")):
        part = {"job_uid": job.uid, "number": number, "content": profiles.cipher.encrypt(content)}
        session.execute(insert(UploadPart), part)
    return job.uid


def work(context: Context, job_uid: str, group_id: str) -> str:
    """Upserts a kept file, block by block; repeated, it does the same again.

    Returns what became of the rows, in counts. Raises JobFailed if the group is gone. The file is
    kept for another try only if something else went wrong.
    """
    try:
        done = _upsert(context, job_uid, group_id)
    except JobFailed:
        _forget(context, job_uid)
        raise
    _forget(context, job_uid)
    return done


def _upsert(context: Context, job_uid: str, group_id: str) -> str:
    with context.store.read() as session:
        if session.get(Group, group_id) is None:
            raise JobFailed("The customer group is gone.")
        profiles = Profiles(session, context.keys, group_id)
        rules, cipher = profiles.rules, profiles.cipher

    def frames() -> Iterator[pl.DataFrame]:
        return rows(_Kept(context, job_uid, cipher))

    try:
        repeated = repeated_ids(frames, rules)
    except Refusal as refusal:  # the fields have changed since the file was taken
        raise JobFailed(refusal.text) from None
    tally = Tally()
    for accepted in judged(frames(), rules, repeated, tally):
        with context.store.write() as session:
            if session.get(Group, group_id) is None:
                raise JobFailed("The customer group is gone.")
            Profiles(session, context.keys, group_id).put(accepted)
    return f"{tally.accepted:,} of {tally.total:,} rows accepted, {tally.rejected:,} rejected."


def _forget(context: Context, job_uid: str) -> None:
    with context.store.write() as session:
        session.execute(delete(UploadPart).where(UploadPart.job_uid == job_uid))


class _Kept:
    """A kept file, read part by part."""

    def __init__(self, context: Context, job_uid: str, cipher: Fernet) -> None:
        self._context = context
        self._job_uid = job_uid
        self._cipher = cipher
        self._next = 0

    def read(self, size: int, /) -> bytes:
        with self._context.store.read() as session:
            part = session.get(UploadPart, (self._job_uid, self._next))
        self._next += 1
        return self._cipher.decrypt(part.content) if part else b""
