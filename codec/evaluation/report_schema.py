"""Schema of report.json, which is untrusted: pages show what it names and read its audio files."""

from pathlib import PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, FailFast, Field, model_validator

from codec.utils.safe_io import Schema

CLIP_COLUMNS = ("clip", "speaker", "seconds")  # every other column of `Report.clips` is a metric
Role = Literal["reference", "decoded"]  # of a clip's two audio files


def _inside_its_folder(name: str) -> str:
    path = PureWindowsPath(name)  # splits at / and \: a report may have been written on either system
    if not path.parts or path.anchor or ".." in path.parts or not name.isprintable():
        raise ValueError("an audio file outside of its folder")
    return name


Number = Annotated[float, Field(gt=-1e300, lt=1e300)]
MetricName = Annotated[str, Field(pattern="^[A-Za-z0-9_]+$")]
AudioFile = Annotated[str, AfterValidator(_inside_its_folder)]


class Clip(Schema):
    """A row of the table of clips: the metrics are further columns, null where there is no score."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]
    clip: str
    speaker: str | int | None
    seconds: Number


class Failure(Schema):
    clip: str
    metric: str
    reason: str


class Facts(Schema):
    """Facts that pages and tables compute with; any others are shown as text."""

    sample_rate: Number | None = None
    kbps: Number | None = None
    n_q: Number | None = None
    system: str | None = None
    run: str | None = None
    code_frames: Number | None = None
    codebook_usage_uniform: Number | None = None
    codebook_usage: list[Number] | None = None
    codebook_perplexity: list[Number] | None = None

    @model_validator(mode="after")
    def _one_of_each_codebook(self) -> "Facts":
        usage, perplexity = self.codebook_usage, self.codebook_perplexity
        if usage is not None and perplexity is not None and len(usage) != len(perplexity):
            raise ValueError("codebook_usage and codebook_perplexity differ in length")
        return self


class ReportFile(Schema):
    """A report.json. Those of older versions name their metrics in ``summary`` alone, and have no ``audio``."""

    metrics: list[MetricName] | None = None
    summary: dict[MetricName, Any] | None = None
    clips: Annotated[list[Clip], Field(min_length=1), FailFast()]
    failures: Annotated[list[Failure], FailFast()]
    facts: Facts
    audio: dict[str, dict[Role, AudioFile]] = Field(default_factory=dict)

    @property
    def metric_names(self) -> list[str]:
        return list(self.summary or ()) if self.metrics is None else self.metrics

    @model_validator(mode="after")
    def _consistent(self) -> "ReportFile":
        metrics, clips = set(self.metric_names), {row.clip for row in self.clips}
        if self.metrics is None and self.summary is None:
            raise ValueError("it does not name its metrics")
        if len(metrics) < len(self.metric_names) or metrics & set(CLIP_COLUMNS):
            raise ValueError("a metric is named twice, or like a column of the clips")
        if len(clips) < len(self.clips):
            raise ValueError("a clip is listed twice")
        for row in self.clips:
            if missing := metrics - row.model_extra.keys():
                raise ValueError(f"the clip {row.clip!r} lacks the metric {min(missing)}")
        for clip, files in self.audio.items():
            if clip not in clips or len(files) < 2:
                raise ValueError(f"the audio of {clip!r} is not the reference and the decoded file of one of its clips")
        return self
