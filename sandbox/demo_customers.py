"""Generated customers: deterministic, with names as hard to handle as real ones."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random

from nudgescribe.contract import CreateField

VARIABLES = ("plan", "region")
"""The demo campaign's variables: its segments are the combinations of these two fields."""

TEMPLATE = (
    "Dear {{ first_name }} {{ last_name }},\n\n"
    'your "{{ plan }}" plan in {{ region }} has something new for you: 10 % off, '
    "until the end of the month.\n"
)

PLANS_BEFORE = ("basic", "plus", "family", "legacy")
PLANS_NOW = ("basic", "plus", "family", "student")
LEAVE_EVERY = 50
CUSTOMERS = 5000
"""Of the demo's first run."""
INVALID_EVERY = 97
QUERY = "SELECT * FROM customers ORDER BY customer_id"
REGIONS = ("North", "South", "East", "West")

_FIRST_NAMES = (
    "Anna", 'Robert "Bob"', "O'Hara", "Zoë", "李", "Мария", "محمد", "さくら", "José, Luis",
    "Nguyễn", "Ιωάννα", "दीपिका", "Björn", "Łukasz", "Mary\nJane", "한별", "D'Angelo", "Ṣọlá",
)  # fmt: skip
_LAST_NAMES = (
    "Smith", "van der Berg", "Smith, Jr.", "Müller", "Иванова", "王", 'de la "Cruz"', "O’Neill",
    "Öztürk", "García-Márquez", "Line\r\nBreak", "García; DROP", "🙂 Sunny", "=SUM(A1)", "Дядя",
)  # fmt: skip


def fields(workspace_id: str) -> list[CreateField]:
    """Return the demo workspace's fields; `customer_id` is the customer identifier."""
    field = partial(CreateField, workspace_id=workspace_id)
    return [
        field(field_name="customer_id", field_type="string", required=True, unique=True),
        field(field_name="first_name", field_type="string", required=True),
        field(field_name="last_name", field_type="string"),
        field(field_name="birthday", field_type="Date", field_format="dd/MM/yyyy"),
        field(field_name="balance", field_type="currency", field_format="EUR"),
        field(field_name="visits", field_type="number"),
        field(field_name="grade", field_type="char"),
        field(field_name="plan", field_type="string", required=True),
        field(field_name="region", field_type="string", required=True),
    ]


def customers(
    count: int, plans: tuple[str, ...], *, invalid_every: int = 0
) -> Iterator[dict[str, str]]:
    """Yield `count` customers, always the same; every `invalid_every`-th breaks one rule, another
    each time, which changes nobody else.
    """
    random = Random(7)
    for number in range(1, count + 1):
        customer = {
            "customer_id": f"{number:06d}",
            "first_name": random.choice(_FIRST_NAMES),
            "last_name": random.choice(_LAST_NAMES),
            "birthday": f"{random.randint(1, 28):02d}/{random.randint(1, 12):02d}/"
            f"{random.randint(1940, 2008)}",
            "balance": f"{random.randint(0, 500_000) / 100:.2f}",
            "visits": str(random.randint(0, 99)),
            "grade": random.choice("ABCDÉ"),
            "plan": random.choice(plans),
            "region": random.choice(REGIONS),
        }
        if invalid_every and number % invalid_every == 0:
            customer.update(_MISTAKES[number // invalid_every % len(_MISTAKES)])
        yield customer


def customers_now(before: int, *, invalid_every: int) -> Iterator[dict[str, str]]:
    """Yield the customers some time after there were `before`: one of fifty has left and as many
    have joined, legacy plans have become student plans, and every `invalid_every`-th is mistaken.
    """
    joined = before // LEAVE_EVERY
    people = customers(before + joined, PLANS_NOW, invalid_every=invalid_every)
    for number, customer in enumerate(people, 1):
        if number > before or number % LEAVE_EVERY:
            yield customer


def write_crm(database: Path) -> None:
    """Write a CRM in SQLite, to be read by `QUERY`: the customers of now after `CUSTOMERS`, every
    `INVALID_EVERY`-th mistaken. An older database at this path is replaced.
    """
    rows = list(customers_now(CUSTOMERS, invalid_every=INVALID_EVERY))
    columns = ", ".join(rows[0])
    values = ", ".join(f":{name}" for name in rows[0])
    database.unlink(missing_ok=True)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"CREATE TABLE customers ({columns})")
        connection.executemany(f"INSERT INTO customers VALUES ({values})", rows)  # noqa: S608


_MISTAKES: tuple[dict[str, str], ...] = (
    {"first_name": ""},
    {"birthday": "31/02/1990"},
    {"birthday": "1990-02-01"},
    {"balance": "12.345"},
    {"visits": "many"},
    {"grade": "A+"},
)
