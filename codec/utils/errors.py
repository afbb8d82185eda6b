"""Errors that end a program with one sentence, without a traceback."""


class UserError(Exception):
    """Base of all errors of this package; the message is one sentence for the user."""


class InputError(UserError, ValueError):
    """Raised if an option or a file cannot be used; the message says what to do."""
