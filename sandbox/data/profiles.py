"""Customer profiles at rest: blocks of rows, each encrypted as a whole.

A block is one Fernet token of a Parquet file, so that a million customers are a hundred tokens, and
segments and messages are computed column by column. Outside the blocks a customer is only a keyed
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
from sandbox.data.models import Account, Block, Customer, Group, Workspace
from sandbox.settings import Keys

BLOCK_ROWS = 10_000
DIGESTS_ASKED = 1000
"""In one statement: the database keeps statements, and each is as large as what it asks."""
DIGEST_BYTES = 16


def new_profile_key(keys: Keys) -> bytes:
    """A key for a new account, wrapped by the master key."""
    return Fernet(keys.master_key).encrypt(Fernet.generate_key())


def profile_key(keys: Keys, account: Account) -> bytes:
    return Fernet(keys.master_key).decrypt(account.wrapped_key)


class Profiles:
    """The customers of one group, within a session."""

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
        return count_customers(self._session, self._group_id)

    def put(self, frame: pl.DataFrame) -> None:
        """Upserts a judged frame's rows by their identifier; what it has no column for stays."""
        others = [name for name in self.columns if name not in frame.columns]
        for part in frame.iter_slices(BLOCK_ROWS):
            digests = self._digests(part)
            before = self._take(digests).select(self.key, *others)
            rows = part.join(before, on=self.key, how="left", maintain_order="left")
            number = self._session.scalars(
                insert(Block).returning(Block.number),
                {"group_id": self._group_id, "size": rows.height, "content": self._seal(rows)},
            ).one()
            # The connection's own insert: a session's looks at each of a million rows.
            self._session.connection().execute(
                insert(Customer),
                [{"digest": digest, "block_number": number} for digest in digests],
            )

    def remove(self, customer_ids: Sequence[str]) -> int:
        """How many customers were there to be removed."""
        ids = pl.DataFrame({self.key: customer_ids}, schema={self.key: pl.String}).unique()
        return sum(self._take(self._digests(some)).height for some in ids.iter_slices(BLOCK_ROWS))

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """All customers block by block, in a stable order; null where they have no value."""
        for number in self._numbers():
            yield self._open(number, columns)

    def page(self, start: int, length: int) -> pl.DataFrame:
        """All columns of `length` customers from `start` on."""
        sizes = self._session.execute(
            select(Block.number, Block.size)
            .where(Block.group_id == self._group_id)
            .order_by(Block.number)
        )
        parts = [self._nobody()]
        before = 0
        for number, size in sizes.all():
            first, last = max(start - before, 0), min(start + length - before, size)
            if first < last:
                parts.append(self._open(number, self.columns).slice(first, last - first))
            before += size
        return pl.concat(parts)

    def drop(self, column: str) -> None:
        """Deletes the values of one field."""
        for number in self._numbers():
            frame = self._decrypt(number)
            if column in frame.columns:
                self._replace(number, frame.drop(column))

    def _numbers(self) -> Sequence[int]:
        query = select(Block.number).where(Block.group_id == self._group_id)
        return self._session.scalars(query.order_by(Block.number)).all()

    def _take(self, digests: Sequence[str]) -> pl.DataFrame:
        """Takes customers out of their blocks, for good, and returns those who were in one."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for some in _chunks(digests):
            query = select(Customer.digest, Customer.block_number)
            for digest, number in self._session.execute(query.where(Customer.digest.in_(some))):
                found[number].append(digest)
        taken = [self._nobody()]
        for number, gone in found.items():
            frame = self._open(number, self.columns)
            chosen = pl.Series(self._digests(frame)).is_in(gone)
            taken.append(frame.filter(chosen))
            if len(gone) == frame.height:
                self._session.execute(delete(Block).where(Block.number == number))
                continue
            self._replace(number, frame.filter(~chosen))
            for some in _chunks(gone):
                self._session.execute(delete(Customer).where(Customer.digest.in_(some)))
        return pl.concat(taken)

    def _nobody(self) -> pl.DataFrame:
        return pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String()))

    def _digests(self, frame: pl.DataFrame) -> list[str]:
        group = blake2b(self._group_id.encode(), key=self._secret, digest_size=DIGEST_BYTES)
        digests: list[str] = []
        for customer_id in frame[self.key]:
            digest = group.copy()
            digest.update(customer_id.encode())
            digests.append(digest.hexdigest())
        return digests

    def _seal(self, frame: pl.DataFrame) -> bytes:
        file = io.BytesIO()
        frame.write_parquet(file)
        return self.cipher.encrypt(file.getvalue())

    def _decrypt(self, number: int) -> pl.DataFrame:
        content = self._session.scalars(select(Block.content).where(Block.number == number)).one()
        return pl.read_parquet(io.BytesIO(self.cipher.decrypt(content)))

    def _open(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        frame = self._decrypt(number)
        nothing = pl.lit(None, pl.String())
        return frame.select(
            pl.col(name) if name in frame.columns else nothing.alias(name) for name in columns
        )

    def _replace(self, number: int, frame: pl.DataFrame) -> None:
        self._session.execute(
            update(Block)
            .where(Block.number == number)
            .values(size=frame.height, content=self._seal(frame))
        )


def _chunks(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(digests), DIGESTS_ASKED):
        yield digests[start : start + DIGESTS_ASKED]


def count_customers(session: Session, group_id: str) -> int:
    query = select(func.coalesce(func.sum(Block.size), 0)).where(Block.group_id == group_id)
    return session.scalars(query).one()
