"""Where a refresh's effects leave its process: each is seen before it begins, half-way and done."""

import re
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Lock, current_thread, main_thread
from typing import Any, Literal

import httpx
from prefect.context import TaskRunContext

from blocks.storage.files import Draft, Files
from nudgescribe.links import Links

Moment = Literal["before", "during", "after"]
SENT = "http11.send_request_body.complete"
_OURS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b")


class Watch:
    """Counts effects by their names, in the order they begin, and tells `at` of their moments."""

    def __init__(self, at: Callable[[str, Moment], None]) -> None:
        self.at = at
        self.seen: list[str] = []
        self._times: Counter[str] = Counter()
        self._lock = Lock()

    def begin(self, what: str) -> str:
        """The name of an effect about to begin: its task, what it is, the how-manieth."""
        context = TaskRunContext.get()
        # Threads without a task are those that fetch pages.
        other = "flow" if current_thread() is main_thread() else "pages"
        name = f"{context.task.name if context else other}: {_OURS.sub('*', what)}"
        with self._lock:
            self._times[name] += 1
            name += f" #{self._times[name]}"
            self.seen.append(name)
        self.at(name, "before")
        return name

    @contextmanager
    def effect(self, what: str) -> Generator[Callable[[], None]]:
        """Around an effect; what it yields is to be called half-way."""
        name = self.begin(what)
        yield lambda: self.at(name, "during")
        self.at(name, "after")

    def install(self) -> None:
        """Watches this process from now on."""
        self._watch_calls()
        self._watch_links()
        self._watch_files()

    def _watch_calls(self) -> None:
        send, watch = httpx.HTTPTransport.handle_request, self

        def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
            with watch.effect(f"{request.method} {request.url.path}") as half_way:

                def trace(event: str, about: dict[str, Any]) -> None:
                    # The service has the request, and nobody will hear its answer.
                    if event == SENT:
                        half_way()

                request.extensions = {**request.extensions, "trace": trace}
                return send(self, request)

        httpx.HTTPTransport.handle_request = handle_request  # type: ignore[method-assign]

    def _watch_links(self) -> None:
        download, watch = Links.download, self

        def watched(self: Links, *arguments: Any) -> int:
            with watch.effect("GET link"):
                return download(self, *arguments)

        Links.download = watched  # type: ignore[method-assign]

    def _watch_files(self) -> None:
        start, publish, remove, watch = Draft.__init__, Draft.publish, Files.remove, self

        def draft(self: Any, files: Files, path: str, private: bool) -> None:
            self.watched = watch.begin(f"write {path}")
            start(self, files, path, private)

        def published(self: Any, **options: bool) -> None:
            watch.at(self.watched, "during")
            try:
                publish(self, **options)
            finally:
                # Also of a file that another was before with.
                watch.at(self.watched, "after")

        def removed(self: Files, path: str) -> None:
            if not self.exists(path):
                return
            with watch.effect(f"remove {path}") as half_way:
                first, *_ = next(self.list_files(path))
                self.fs.rm(self.fs_path(first))
                half_way()
                remove(self, path)

        Draft.__init__ = draft  # type: ignore[method-assign]
        Draft.publish = published  # type: ignore[method-assign]
        Files.remove = removed  # type: ignore[method-assign]
