"""The window of ``render_mode="human"``; the only door to pygame."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from drivesim.errors import InputError
from drivesim.scene.types import Image

SCALE = 3


class Window:
    """A window that shows one picture after another at a steady rate."""

    def __init__(self, *, title: str, rate_hz: float) -> None:
        """Remember the title and the rate; the window opens with the first picture."""
        self._title = title
        self._rate_hz = rate_hz
        self._pygame: Any = None
        self._screen: Any = None
        self._clock: Any = None

    def show(self, frame: Image) -> None:
        """Show a (H, W, 3) picture, three times as large, and wait for its turn.

        Raises:
            InputError: pygame is missing, or there is no display to open a window on.
        """
        if self._screen is None:
            self._open(frame)
        pygame = self._pygame
        pygame.event.pump()
        picture = pygame.surfarray.make_surface(np.swapaxes(frame, 0, 1))
        self._screen.blit(pygame.transform.scale(picture, self._screen.get_size()), (0, 0))
        pygame.display.flip()
        self._clock.tick(self._rate_hz)

    def close(self) -> None:
        """Close the window, if it is open."""
        if self._screen is not None:
            self._pygame.display.quit()
            self._screen = None

    def _open(self, frame: Image) -> None:
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        try:
            import pygame
        except ImportError as error:
            raise InputError(
                'render_mode="human" needs pygame: install it or use render_mode="rgb_array"'
            ) from error
        has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))
        try:
            if os.name == "posix" and os.uname().sysname == "Linux" and not has_display:
                raise pygame.error("neither DISPLAY nor WAYLAND_DISPLAY is set")
            pygame.display.init()
            size = (frame.shape[1] * SCALE, frame.shape[0] * SCALE)
            self._screen = pygame.display.set_mode(size)
        except pygame.error as error:
            raise InputError(
                f'render_mode="human" found no display ({error}): '
                'start it on a desktop or use render_mode="rgb_array"'
            ) from error
        pygame.display.set_caption(self._title)
        self._pygame, self._clock = pygame, pygame.time.Clock()
