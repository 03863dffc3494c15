"""The contract document, statement by statement, against a service on the other end of HTTP."""
