"""What must not ask the network, for tests."""

import pytest


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a test fail that asks the network for anything."""
    for name in ("socket.connect", "getaddrinfo"):
        monkeypatch.setattr(f"socket.{name}", lambda *_, **__: pytest.fail("the network was asked"))
