"""Errors that a program ends with in one sentence, without a trace."""


class ToldError(Exception):
    """The message is one sentence, and all that the user needs."""


class InputError(ToldError, ValueError):
    """What was asked for cannot be; the sentence says what to do."""
