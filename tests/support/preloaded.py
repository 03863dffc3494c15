"""Imported by the process that tests fork from: then it has all that is imported for a flow run."""

from flows.run.zygote import prepare

prepare()
