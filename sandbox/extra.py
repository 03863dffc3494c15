"""The extra `sandbox`: libraries that only the sandbox needs."""

from importlib.util import find_spec

_MODULES = ("fastapi", "jinja2", "jwt", "python_multipart", "uvicorn")
MISSING = 'The sandbox needs the extra sandbox: pip install "nudgeflow[sandbox]".'


def is_installed() -> bool:
    """Return whether all that the sandbox needs can be imported."""
    return all(map(find_spec, _MODULES))
