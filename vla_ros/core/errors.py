"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input from outside: a file, a message, a parameter.

    The message names the thing, the value and what was expected. Commands print it without a traceback,
    lifecycle nodes log it and refuse the transition.
    """
