"""One verb each: thin Prefect tasks over the blocks. Between them travel references, never rows."""
