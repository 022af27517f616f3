"""A headless Chromium of one's own, driven by Selenium: pages are tried in a browser that people use."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.servers.process import find_program

WIDE, NARROW = (1280, 800), (420, 800)
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # root may run none; the walls under test stand inside the page
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


class Chromium:
    """A context; `driver` is Selenium's, `downloads` the folder that files are saved in."""

    def __init__(self) -> None:
        program = find_program("Chromium", "chromium", package="chromium")
        driver = find_program("Chromium", "chromedriver", package="chromium-driver")
        self._folder = TemporaryDirectory(prefix="mailbridge-chromium-", ignore_cleanup_errors=True)
        self.downloads = Path(self._folder.name) / "downloads"
        self.downloads.mkdir()
        options = webdriver.ChromeOptions()
        options.binary_location = str(program)
        for argument in (*_ARGUMENTS, f"--user-data-dir={self._folder.name}/profile"):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"download.default_directory": str(self.downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver: Any = webdriver.Chrome(options=options, service=Service(str(driver)))
        self.driver.set_page_load_timeout(20)
        self.driver.set_script_timeout(20)

    def complaints(self) -> list[str]:
        """What the pages have written to the console since the last time, refusals of policies included."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.driver.quit()
        self._folder.cleanup()
