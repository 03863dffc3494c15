"""Customer profiles at rest: chunks of rows, each encrypted as a whole.

A chunk is one Fernet token of a Parquet file, so that a million customers are a hundred tokens, and
segments and messages are computed column by column. Outside the chunks a customer is only a keyed
hash of the identifier.
"""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import polars as pl
from cryptography.fernet import Fernet
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from nudgescribe import fields
from sandbox.data.lookup import fields_of
from sandbox.data.models import Account, Customer, Group, ProfileChunk, Workspace
from sandbox.settings import Keys

CHUNK_ROWS = 10_000
BATCH_DIGESTS = 1000
"""Digests in one statement: the driver caches statements, each as large as its parameters."""
DIGEST_BYTES = 16


def new_profile_key(keys: Keys) -> bytes:
    """Return a key for a new account, encrypted with the master key."""
    return Fernet(keys.master_key).encrypt(Fernet.generate_key())


def profile_key(keys: Keys, account: Account) -> bytes:
    """Return the account's key, decrypted."""
    return Fernet(keys.master_key).decrypt(account.wrapped_key)


class Profiles:
    """The customers of one group, in a session."""

    def __init__(self, session: Session, keys: Keys, group_id: str) -> None:
        account = session.scalars(
            select(Account).join(Workspace).join(Group).where(Group.id == group_id)
        ).one()
        workspace_id = session.get_one(Group, group_id).workspace_id
        self._session = session
        self._group_id = group_id
        self._secret = profile_key(keys, account)
        self.cipher = Fernet(self._secret)
        self.rules = fields_of(session, workspace_id)
        self.columns = [field.field_name for field in self.rules]
        self.key = fields.key_of(self.rules)

    @property
    def size(self) -> int:
        """Return how many customers the group has."""
        return count_customers(self._session, self._group_id)

    def upsert(self, frame: pl.DataFrame) -> None:
        """Write accepted rows by their identifier; values of columns they lack stay."""
        others = [name for name in self.columns if name not in frame.columns]
        for rows in frame.iter_slices(CHUNK_ROWS):
            digests = self._digests(rows)
            before = self._pop(digests).select(self.key, *others)
            merged = rows.join(before, on=self.key, how="left", maintain_order="left")
            number = self._session.scalars(
                insert(ProfileChunk).returning(ProfileChunk.number),
                {
                    "group_id": self._group_id,
                    "size": merged.height,
                    "content": self._encrypt(merged),
                },
            ).one()
            # A session's own insert would look at each row.
            self._session.connection().execute(
                insert(Customer),
                [{"digest": digest, "block_number": number} for digest in digests],
            )

    def remove(self, customer_ids: Sequence[str]) -> int:
        """Delete customers; return how many of them there were."""
        ids = pl.DataFrame({self.key: customer_ids}, schema={self.key: pl.String}).unique()
        return sum(self._pop(self._digests(rows)).height for rows in ids.iter_slices(CHUNK_ROWS))

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield all customers chunk by chunk, in a stable order; null where they have no value."""
        for number in self._numbers():
            yield self._read(number, columns)

    def page(self, start: int, length: int) -> pl.DataFrame:
        """Return all columns of up to `length` customers from `start` on; empty beyond the last."""
        sizes = self._session.execute(
            select(ProfileChunk.number, ProfileChunk.size)
            .where(ProfileChunk.group_id == self._group_id)
            .order_by(ProfileChunk.number)
        )
        slices = [self._empty_frame()]
        before = 0
        for number, size in sizes.all():
            first, last = max(start - before, 0), min(start + length - before, size)
            if first < last:
                slices.append(self._read(number, self.columns).slice(first, last - first))
            before += size
        return pl.concat(slices)

    def drop_column(self, column: str) -> None:
        """Delete the values of one field."""
        for number in self._numbers():
            frame = self._decrypt(number)
            if column in frame.columns:
                self._replace(number, frame.drop(column))

    def _numbers(self) -> Sequence[int]:
        query = select(ProfileChunk.number).where(ProfileChunk.group_id == self._group_id)
        return self._session.scalars(query.order_by(ProfileChunk.number)).all()

    def _pop(self, digests: Sequence[str]) -> pl.DataFrame:
        """Delete customers from their chunks and return them; unknown digests are skipped."""
        popped = [self._empty_frame()]
        for number, known in self._by_chunk(digests).items():
            frame = self._read(number, self.columns)
            selected = pl.Series(self._digests(frame)).is_in(known)
            popped.append(frame.filter(selected))
            if len(known) == frame.height:
                self._session.execute(delete(ProfileChunk).where(ProfileChunk.number == number))
                continue
            self._replace(number, frame.filter(~selected))
            for batch in _batches(known):
                self._session.execute(delete(Customer).where(Customer.digest.in_(batch)))
        return pl.concat(popped)

    def _by_chunk(self, digests: Sequence[str]) -> dict[int, list[str]]:
        """Return the known digests by the number of their chunk."""
        known: defaultdict[int, list[str]] = defaultdict(list)
        for batch in _batches(digests):
            query = select(Customer.digest, Customer.block_number)
            for digest, number in self._session.execute(query.where(Customer.digest.in_(batch))):
                known[number].append(digest)
        return known

    def _empty_frame(self) -> pl.DataFrame:
        return pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String()))

    def _digests(self, frame: pl.DataFrame) -> list[str]:
        group = blake2b(self._group_id.encode(), key=self._secret, digest_size=DIGEST_BYTES)
        digests: list[str] = []
        for customer_id in frame[self.key]:
            digest = group.copy()
            digest.update(customer_id.encode())
            digests.append(digest.hexdigest())
        return digests

    def _encrypt(self, frame: pl.DataFrame) -> bytes:
        file = io.BytesIO()
        frame.write_parquet(file)
        return self.cipher.encrypt(file.getvalue())

    def _decrypt(self, number: int) -> pl.DataFrame:
        content = self._session.scalars(
            select(ProfileChunk.content).where(ProfileChunk.number == number)
        ).one()
        return pl.read_parquet(io.BytesIO(self.cipher.decrypt(content)))

    def _read(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        frame = self._decrypt(number)
        nothing = pl.lit(None, pl.String())
        return frame.select(
            pl.col(name) if name in frame.columns else nothing.alias(name) for name in columns
        )

    def _replace(self, number: int, frame: pl.DataFrame) -> None:
        self._session.execute(
            update(ProfileChunk)
            .where(ProfileChunk.number == number)
            .values(size=frame.height, content=self._encrypt(frame))
        )


def _batches(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(digests), BATCH_DIGESTS):
        yield digests[start : start + BATCH_DIGESTS]


def count_customers(session: Session, group_id: str) -> int:
    """Return how many customers a group has."""
    query = select(func.coalesce(func.sum(ProfileChunk.size), 0)).where(
        ProfileChunk.group_id == group_id
    )
    return session.scalars(query).one()
