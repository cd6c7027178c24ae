"""The one exception for what a user can cause; the command line prints its sentence and exits with 2."""


class InputError(ValueError):
    """Bad input: the message names the offending value and the remedy in one or two sentences."""
