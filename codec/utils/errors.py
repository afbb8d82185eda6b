"""Errors that end a program with one sentence, without a traceback."""

MOST = 500  # characters of a message


def shortened(text: str, most: int = MOST) -> str:
    """A text for a terminal: the middle of a long one left out, and no line breaks or control characters."""
    text = text if len(text) <= most else f"{text[: most * 2 // 3]} ... {text[len(text) + 5 - most // 3 :]}"
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "?" for sign in text)


def first_line(error: BaseException) -> str:
    """First line of an error's message without its full stop, or the class's name, for use within a sentence."""
    return shortened((str(error).strip() or type(error).__name__).splitlines()[0].rstrip("."), 200)


class UserError(Exception):
    """Base of all errors of this package; the message is one sentence for the user."""

    def __str__(self) -> str:
        return shortened(super().__str__())


class InputError(UserError, ValueError):
    """Raised if an option or a file cannot be used; the message says what to do."""
