"""A campaign's AI configuration: who writes its messages, and how."""

from typing import Annotated, Literal

from pydantic import Field

from nudgescribe.contract import Request
from sandbox.errors import JobFailed
from sandbox.settings import ChatEndpoint
from sandbox.writing import writers
from sandbox.writing.writers import ChatWriter, MessageWriter, TemplateWriter

LONGEST_URL = 2000


class AiConfiguration(Request):
    """How a campaign's messages are written; what is None, the service's options say.

    `writer` is the *template* alone, or a *model*. A `model` is asked with the `template`, a
    `prompt` that says what to write, and a `temperature`, at an OpenAI-compatible `endpoint`, a URL
    that ends before `/chat/completions`.
    """

    writer: Literal["template", "model"] | None = None
    template: str | None = None
    model: str | None = None
    prompt: str | None = None
    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    endpoint: Annotated[str | None, Field(pattern="^https?://", max_length=LONGEST_URL)] = None

    @property
    def wants_model(self) -> bool:
        """Return whether anything in it is for a model."""
        values = (self.model, self.prompt, self.temperature, self.endpoint)
        return self.writer == "model" or any(each is not None for each in values)


def writer_for(configuration: AiConfiguration, default: ChatEndpoint | None) -> MessageWriter:
    """Return a campaign's writer. Raises JobFailed if it wants a model and there is no endpoint."""
    by_model = configuration.wants_model or default is not None
    if configuration.writer == "template" or not by_model:
        return TemplateWriter()
    url = configuration.endpoint or (default.url if default else None)
    if url is None:
        raise JobFailed("The campaign's AI configuration has no endpoint, nor has the service.")
    endpoint = ChatEndpoint(
        url=url,
        model=configuration.model or (default.model if default else ""),
        # The service's key is a secret between it and its own endpoint.
        key=default.key if default and url.rstrip("/") == default.url.rstrip("/") else "",
    )
    return ChatWriter(
        endpoint,
        prompt=configuration.prompt or writers.PROMPT,
        temperature=configuration.temperature,
        max_wait=writers.MAX_WAIT_SECONDS,
    )
