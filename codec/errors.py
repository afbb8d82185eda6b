"""What a user can mend."""


class InputError(ValueError):
    """What was asked for cannot be; the message is one sentence that says what to do, and all that the user needs."""
