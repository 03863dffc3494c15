"""What a worker can do with little memory and half a core.

LIMIT_CUSTOMERS=5000000 LIMIT_CPUS=2 make test-containers measures what the documents tell.
"""

import os
from collections.abc import Callable

import pytest

from blocks import FileCrm
from tests.containers.conftest import Campaign
from tests.support.clock import until
from tests.support.containers import Stack
from tests.support.deployed import state_of

pytestmark = [pytest.mark.containers, pytest.mark.timeout(7200)]

CUSTOMERS = int(os.environ.get("LIMIT_CUSTOMERS", "100000"))
CPUS = os.environ.get("LIMIT_CPUS", "0.5")
LIST = """
import csv, sys
from sandbox import demo_customers
rows = demo_customers.customers(int(sys.argv[1]), demo_customers.PLANS_BEFORE)
first = next(rows)
with open("/lists/many.csv", "w", encoding="utf-8", newline="") as file:
    writer = csv.DictWriter(file, first)
    writer.writeheader()
    writer.writerow(first)
    writer.writerows(rows)
"""


def test_worker_in_a_gibibyte_refreshes_a_long_list(
    stack: Stack, campaigns: Callable[[], Campaign]
) -> None:
    one = campaigns()
    stack.inside("worker", "python", "-", str(CUSTOMERS), input=LIST)
    FileCrm(path="/lists/many.csv").save("many", overwrite=True)
    stack.stop("worker")
    try:
        with stack.another_worker("--memory=1g", "--memory-swap=1g", f"--cpus={CPUS}"):
            guardrails = {"max_growth": 1e6}
            run = one.refresh("file-crm/many", guardrails=guardrails)
            until(lambda: state_of(run).is_final(), seconds=7000)
    finally:
        stack.start("worker")
    assert state_of(run).is_completed(), state_of(run).message
    one.is_refreshed_once(CUSTOMERS)
