"""Commands of ``python -m codec``, run in this process."""

import pytest

from codec.__main__ import main


def fails(arguments, *words: str) -> None:
    """The command ends with one sentence that has these words in it, and with status 1."""
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in arguments])
    message = str(error.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def misused(capsys, arguments, *words: str) -> None:
    """The command ends with its usage and one line that has these words in it, and with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        main([str(argument) for argument in arguments])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("usage: python -m codec")
    for word in words:
        assert word in lines[-1]
