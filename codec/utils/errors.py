"""Errors that a program ends with in one sentence, without a trace."""


class UserError(Exception):
    """Base of all errors of this package. The message is one sentence, and all that the user needs."""


class InputError(UserError, ValueError):
    """An option or a file cannot be used as it was given; the sentence says what to do."""
