"""Content endpoints: the customers of a group, checked, upserted, read and deleted."""

from collections.abc import Iterator
from typing import Annotated

import polars as pl
from cryptography.fernet import Fernet
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from nudgescribe import contract, fields, rfc4180
from nudgescribe.contract import Text
from sandbox.faults import Refusal
from sandbox.scope import fields_of, find_group, find_workspace
from sandbox.security import BearerRoute, account_of
from sandbox.store import Account, Customer, new_id
from sandbox.workspaces import count_customers, store_of

router = APIRouter(route_class=BearerRoute)

PAGE_SIZE = 1000
ERRORS_NAMED = 100
IDS_PER_STATEMENT = 10_000


class Upload(contract.GroupRequest):
    """Either way of upload, as text columns."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    validate_only: bool
    frame: pl.DataFrame


async def read_upload(request: Request) -> Upload:
    """The multipart file or the JSON object of a customer/check call."""
    try:
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form() as form:
                return await _from_form(form)
        one = contract.UploadCustomer.model_validate_json(await request.body())
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise RequestValidationError(problems) from None
    values = {name: [None if value is None else str(value)] for name, value in one.customer.items()}
    frame = pl.DataFrame(values, schema=dict.fromkeys(values, pl.String()))
    return Upload(**one.model_dump(exclude={"customer"}), frame=frame)


async def _from_form(form: FormData) -> Upload:
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    target = contract.UploadForm.model_validate(texts)
    file = form.get(contract.UPLOAD_FILE)
    if not isinstance(file, UploadFile):
        raise Refusal(401, Text.MISSING)
    try:
        frame = await run_in_threadpool(rfc4180.read, await file.read())
    except rfc4180.MalformedCsv as error:
        raise Refusal(400, error.problem) from None
    return Upload(**target.model_dump(), frame=frame)


@router.post(contract.CUSTOMERS_CHECK)
def check_customers(
    upload: Annotated[Upload, Depends(read_upload)], request: Request
) -> contract.UploadResult:
    with store_of(request).write() as session:
        _find(session, request, upload)
        rules = fields_of(session, upload.workspace_id)
        if problems := fields.header_problems(upload.frame.columns, rules):
            raise Refusal(400, f"{'; '.join(problems)}.")
        verdict = fields.judge(upload.frame, rules)
        if not upload.validate_only:
            upsert(session, upload.customer_group_id, fields.key_of(rules), verdict.accepted)
    errors = [
        contract.RowError(row=row + 1, field=field, code=code, message=fields.REASONS[code])
        for row, field, code in verdict.errors.head(ERRORS_NAMED).rows()
    ]
    return contract.UploadResult(
        job_uid=new_id(),
        status=contract.UPLOAD_COMPLETED,
        total=upload.frame.height,
        accepted=verdict.accepted.height,
        rejected=verdict.rejected_rows,
        errors=errors,
    )


@router.post(contract.CUSTOMERS_PAGES)
def count_pages(body: contract.GroupRequest, request: Request) -> contract.CustomerPageCount:
    with store_of(request).read() as session:
        _find(session, request, body)
        total = count_customers(session, body.customer_group_id)
    return contract.CustomerPageCount(num_pages=_pages(total), page_size=PAGE_SIZE, total=total)


@router.post(contract.CUSTOMERS)
def read_customers(body: contract.CustomerPageRequest, request: Request) -> contract.CustomerPage:
    with store_of(request).read() as session:
        _find(session, request, body)
        account = session.get_one(Account, account_of(request))
        cipher = Fernet(account.profile_key)
        rows = session.execute(
            select(Customer.customer_id, Customer.profile)
            .where(Customer.group_id == body.customer_group_id)
            .order_by(Customer.number)
            .offset(body.page * PAGE_SIZE)
            .limit(PAGE_SIZE)
        )
        customers = [
            contract.EncryptedCustomer(
                customer_id=customer_id, profile=cipher.encrypt(profile.encode()).decode()
            )
            for customer_id, profile in rows
        ]
        total = count_customers(session, body.customer_group_id)
    return contract.CustomerPage(customers=customers, page=body.page, num_pages=_pages(total))


@router.delete(contract.CUSTOMERS)
def delete_customers(body: contract.DeleteCustomers, request: Request) -> contract.Deleted:
    with store_of(request).write() as session:
        _find(session, request, body)
        before = count_customers(session, body.customer_group_id)
        for start in range(0, len(body.customer_ids), IDS_PER_STATEMENT):
            some = body.customer_ids[start : start + IDS_PER_STATEMENT]
            session.execute(
                delete(Customer)
                .where(Customer.group_id == body.customer_group_id)
                .where(Customer.customer_id.in_(some))
            )
        left = count_customers(session, body.customer_group_id)
    return contract.Deleted(deleted=before - left)


def upsert(session: Session, group_id: str, key: str, frame: pl.DataFrame) -> None:
    """Writes a judged frame's rows into a group, by their identifier."""
    if frame.is_empty():
        return
    rows = frame.select(
        pl.lit(group_id).alias("group_id"),
        pl.col(key).alias("customer_id"),
        pl.struct(pl.all()).struct.json_encode().alias("profile"),
    )
    statement = insert(Customer)
    statement = statement.on_conflict_do_update(
        index_elements=["group_id", "customer_id"],
        set_={"profile": statement.excluded.profile},
    )
    session.execute(statement, rows.to_dicts())


def profiles(
    session: Session, group_id: str, columns: list[str], rows: int
) -> Iterator[pl.DataFrame]:
    """A group's customers as text columns, `rows` at a time, in the order they were added."""
    shape = pl.Struct(dict.fromkeys(columns, pl.String()))
    last = 0
    while True:
        batch = session.execute(
            select(Customer.number, Customer.profile)
            .where(Customer.group_id == group_id, Customer.number > last)
            .order_by(Customer.number)
            .limit(rows)
        ).all()
        if not batch:
            return
        last = batch[-1].number
        decoded = pl.Series("profile", [row.profile for row in batch]).str.json_decode(shape)
        yield decoded.struct.unnest()


def _find(session: Session, request: Request, body: contract.GroupRequest) -> None:
    find_workspace(session, account_of(request), body.workspace_id)
    find_group(session, account_of(request), body.customer_group_id, within=body.workspace_id)


def _pages(total: int) -> int:
    return -(-total // PAGE_SIZE)
