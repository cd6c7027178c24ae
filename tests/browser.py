"""A real browser for pages that benchmarks write, where the machine has one."""

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window; fails if the browser does, or if the page complains on its console."""
    command = [
        *[str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
        *["--disable-background-networking", f"--user-data-dir={profile}", "--enable-logging=stderr"],
        *[*options, page.as_uri()],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done
