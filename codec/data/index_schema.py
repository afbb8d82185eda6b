"""Schema of the index.json of a corpus in shards, of audio or of latents: its files, and the split of each."""

from typing import Annotated, Literal, TypeVar

from pydantic import FailFast, NonNegativeInt, StringConstraints, model_validator

from codec.data.base import CorpusError
from codec.utils.safe_io import Schema, UntrustedFileError, parse_as, parse_json

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Part(Schema):
    """One file of a corpus; its name has no suffix and cannot leave the folder."""

    name: Name


class CorpusIndex(Schema):
    """Base of indices; `splits` maps train, val and test to the numbers of their parts, in order."""

    format: str
    version: int
    splits: dict[Literal["train", "val", "test"], Annotated[list[NonNegativeInt], FailFast()]]

    @property
    def parts(self) -> list[Part]:
        raise NotImplementedError

    @model_validator(mode="after")
    def _is_consistent(self) -> "CorpusIndex":
        if len({part.name for part in self.parts}) < len(self.parts):
            raise ValueError("a name is listed twice")
        if len(self.splits) < 3:
            raise ValueError("the splits must be train, val and test")
        for split, numbers in self.splits.items():
            if len(set(numbers)) < len(numbers) or max(numbers, default=0) >= len(self.parts):
                raise ValueError(f"the split {split} must have numbers of parts, each once")
        if {*self.splits["train"]} & {*self.splits["val"], *self.splits["test"]}:
            raise ValueError("a part is for training and held out at once")
        return self


AnyIndex = TypeVar("AnyIndex", bound=CorpusIndex)


def parse_index(content: bytes | str, schema: type[AnyIndex], where: str, remedy: str) -> AnyIndex:
    """Parse and validate an index in JSON. Raises CorpusError with `where` the text is from, and the `remedy`."""
    try:
        return parse_as(schema, parse_json(content), "index.json")
    except UntrustedFileError as error:
        raise CorpusError(f"{where} cannot be used ({error}): {remedy}.") from None
