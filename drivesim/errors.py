"""The one exception for what a user can cause; the command line prints its sentence and exits with 2."""

from collections.abc import Collection
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input: the message names the offending value and the remedy in one or two sentences."""


class UnknownSettingError(InputError, TypeError):
    """A keyword argument that an environment does not have; a TypeError too, as learners that try some expect."""


def with_article(noun: str) -> str:
    """Return a noun with "a" before it, or "an" before a vowel."""
    return f"{'an' if noun.lower().startswith(tuple('aeiou')) else 'a'} {noun}"


def nearest(name: str, names: Collection[str]) -> str:
    """Return the part of an error sentence that says which names were close, or what there is."""
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"choose from {', '.join(names)}" if names else "there are none"
