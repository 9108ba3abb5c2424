"""Somebody who opens a page of ours in a real browser; what goes wrong is kept."""

from pathlib import Path


class Visitor:
    """A page in a window of its own; any message, error, dialog or request is a fault."""

    def __init__(self, browser, file: Path, **context) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on(
            "request",
            lambda request: (
                request.url in (file.as_uri(),)
                or request.url.startswith("data:")
                or self.faults.append(request.url)
            ),
        )
        self.page.goto(file.as_uri())

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()
        if error[0] is None:
            assert self.faults == []
