"""The JSON of the REST API: every request and every response. The OpenAPI description is made from these models.

The server (`web.routes`) and the client (`nst_daemon.client`) share them. Times are seconds since the epoch; sizes are
bytes unless a field says otherwise. Names are printable: characters that cannot be shown are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nst_daemon.intake.drops import MAX_PRIORITY, MAX_STYLE_PICTURES
from nst_daemon.jobs import JobState, Role
from nst_daemon.ledger_reader import Verb
from nst_daemon.names import printable
from nst_daemon.tokens import Access

#: The prefix of the REST API.
API = "/api/v1"
#: The most contents of one submission, and the most jobs of one action, of a part of a list, and of a ZIP file.
MAX_CONTENTS, MAX_ACTED, MAX_LISTED, MAX_ZIPPED = 200, 1000, 200, 200
#: The longest wait for the end of a job in seconds.
MAX_WAIT = 60
#: Event streams: seconds without an event until a comment is sent, and the id of the last event, which a client that
#: connects again sends as `Last-Event-ID`.
HEARTBEAT_SECONDS, LAST_EVENT = 15.0, "end"


def _number(value: object) -> object:
    """Refuse true and "1" where a number is needed."""
    if isinstance(value, bool | str):
        raise ValueError("a number is needed")
    return value


def _boolean(value: object) -> object:
    """Refuse 1 and "yes" where true or false is needed."""
    if value is not None and not isinstance(value, bool):
        raise ValueError("true or false is needed")
    return value


PrintableText = Annotated[str, AfterValidator(printable)]
Identifier = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Priority = Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY), BeforeValidator(_number)]
Settings = Mapping[str, Any]
#: The state of a job. "inbox": its files are in the inbox, and the daemon has not taken them yet.
State = Literal["inbox"] | JobState
#: The files of a job: /jobs/{id}/{file}.
JobFile = Literal["result", "sidecar", "loss-plot", "time-lapse", "preview"]
#: The sizes of a picture: reduced, or the file as it is.
PictureSize = Literal["thumbnail", "view", "original"]
#: The order of a list: by the latest change, or the jobs that have not ended, as they will be painted.
Order = Literal["newest", "oldest", "queue"]


class RequestBody(BaseModel):
    """A request. Unknown keys are errors, so that a misspelt key is not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ResponseBody(BaseModel):
    """A response. Clients must ignore keys that they do not know."""

    model_config = ConfigDict(frozen=True)


class ErrorBody(ResponseBody):
    """An error. `error` is one line with cause and remedy, in the words of the commands."""

    error: PrintableText
    cause: PrintableText
    remedy: PrintableText = ""
    field: PrintableText = Field(
        default="", description="The part of the request, such as settings.size."
    )


# Status


class PaintingInfo(ResponseBody):
    """A job that a worker is painting."""

    id: str
    name: PrintableText
    worker: str
    done: int = Field(description="Finished iterations.")
    total: int = Field(description="All iterations; 0 while they are unknown.")
    percent: int = Field(description="Of the iterations.")
    speed: float | None = Field(description="Iterations per second.")
    left: float | None = Field(description="Seconds.")
    curve: list[tuple[int, float]] = Field(description="Iteration and total loss.")
    preview: int = Field(
        description="Changes with the preview (milliseconds since the epoch); 0 before the first preview."
    )


class WorkerInfo(ResponseBody):
    """A worker of the daemon. `note` says what it waits for, or why it cannot work."""

    worker: str
    state: str
    note: PrintableText


class WaitingInfo(ResponseBody):
    """A drop that waits in the inbox."""

    name: PrintableText
    cause: PrintableText
    remedy: PrintableText
    files: list[PrintableText]
    left: float | None = Field(description="Seconds until it is moved to failed/; null: no limit.")


class InboxInfo(ResponseBody):
    """What is in the inbox. `more`: the number of items that are not listed."""

    waiting: list[WaitingInfo]
    settling: list[PrintableText] = Field(description="Files that are still being written.")
    left_alone: dict[str, PrintableText] = Field(
        description="Files that are not drops, each with the reason."
    )
    notes: list[PrintableText] = Field(description="Other remarks about the inbox.")
    more: int


class StatusInfo(ResponseBody):
    """The state of the daemon."""

    version: str
    running: bool
    state: str = Field(
        description="painting, loading, idle, paused, resting, lost, stopped; away: no daemon is running; "
        "silent: the daemon has not written its status for a minute."
    )
    reason: PrintableText = Field(description="Why the daemon is in this state; may be empty.")
    counts: dict[JobState, int] = Field(description="The number of jobs in each state.")
    paintings: list[PaintingInfo]
    workers: list[WorkerInfo]
    inbox: InboxInfo | None
    queue_seconds: float | None = Field(
        description="Estimated painting time until the queue is empty; null: unknown."
    )
    changed: float = Field(
        description="The latest change or request of any job. When it differs, lists of jobs are out of date."
    )


# Jobs


class BatchPlace(ResponseBody):
    """Which picture of its batch a job is."""

    name: PrintableText
    style: PrintableText
    swept: dict[str, Any] = Field(description="The swept settings with the values of this picture.")
    position: tuple[int, int, int] = Field(
        description="The numbers of content, style and combination of swept values, from 0."
    )


class JobInfo(ResponseBody):
    """A job in a list."""

    id: str
    short_id: str = Field(
        description="The first digits of the id, as the log and the commands show them."
    )
    name: PrintableText
    title: PrintableText = Field(
        description="Tells jobs apart: the name, and for a picture of a batch its style and swept settings."
    )
    source: str = Field(description="Where the job came from: a pair, a hot folder, a batch, …")
    state: State = Field(description="`inbox`: the daemon has not taken the files yet.")
    created: float
    updated: float = Field(description="The latest change.")
    priority: int
    attempts: int
    error: PrintableText = Field(
        description="Why it failed, or why it will be retried; empty: no error."
    )
    result: PrintableText = Field(
        description="The path below results/; empty for a job without a result."
    )
    batch: BatchPlace | None
    styles: list[PrintableText] = Field(
        description="The names of the styles, without the endings and roles of their files."
    )
    requested: Verb | Literal[""] = Field(
        description="A request that the daemon has not handled yet."
    )
    actions: list[Verb] = Field(description="What can be requested now.")


class JobProgress(JobInfo):
    """A job, and its progress while it is being painted."""

    percent: int | None
    left: float | None = Field(description="Seconds.")


class JobInputInfo(ResponseBody):
    """A file of a job."""

    role: Role
    name: PrintableText
    bytes: int
    sha256: str
    available: bool = Field(
        description="Whether /jobs/{id}/inputs/{number} has it; the first has the number 0."
    )


class JobEventInfo(ResponseBody):
    """A change of a job's state."""

    at: float
    state: JobState
    attempt: int
    note: PrintableText


class JobDetails(JobInfo):
    """Everything about a job."""

    inputs: list[JobInputInfo]
    settings: dict[str, Any] = Field(description="Every setting of the painting.")
    outputs: dict[str, Any] = Field(description="Format, depth and quality of the picture.")
    events: list[JobEventInfo]
    files: list[JobFile] = Field(description="Files that exist: /jobs/{id}/{file}.")


class JobPage(ResponseBody):
    """A part of a list of jobs."""

    jobs: list[JobInfo]
    next: str = Field(
        default="", description="The cursor of the next part; empty: this is the last one."
    )
    total: int = Field(description="The number of jobs in the whole list.")


class ContentRef(RequestBody):
    """A content picture that was uploaded."""

    upload: Identifier
    name: str = Field(
        default="",
        max_length=200,
        description="The name of the job; default: the name of the file.",
    )
    mask: Identifier | None = Field(default=None, description="The upload of the content's mask.")


InputNumber = Annotated[int, Field(ge=0), BeforeValidator(_number)]
MaskReference = Annotated[
    Identifier | InputNumber | None,
    Field(
        description="The upload of the mask, or the number of a mask in `inputs` of the earlier job."
    ),
]


def _kinds(**kinds: str) -> dict[str, Any]:
    """What the validators of styles check, as JSON Schema: one of these keys. kinds: their types."""
    null = {"type": "null"}
    return {
        "oneOf": [
            {
                "required": [key],
                "properties": dict.fromkeys(kinds, null)
                | {key: {"type": kind}}
                | ({"mask": null} if key == "library" else {}),
            }
            for key, kind in kinds.items()
        ]
    }


class _StyleFields(RequestBody):
    library: str | None = Field(default=None, min_length=1, max_length=1000)
    upload: Identifier | None = None


class StyleRef(_StyleFields):
    """A style: either of the library, or an uploaded picture."""

    model_config = ConfigDict(json_schema_extra=_kinds(library="string", upload="string"))

    mask: Identifier | None = Field(default=None, description="The upload of the style's mask.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.library is None) == (self.upload is None):
            raise ValueError("a style needs either library or upload")
        if self.library is not None and self.mask is not None:
            raise ValueError("a library style cannot have a mask")
        return self


class RepeatedStyle(_StyleFields):
    """A style of a repeated job: of the library, an uploaded picture, or a style picture of the earlier job."""

    model_config = ConfigDict(
        json_schema_extra=_kinds(library="string", upload="string", input="integer")
    )

    input: InputNumber | None = Field(
        default=None, description="The number of the picture in `inputs` of the earlier job."
    )
    mask: MaskReference = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.library, self.upload, self.input].count(None) != 2:
            raise ValueError("a style needs one of library, upload and input")
        if self.library is not None and self.mask is not None:
            raise ValueError("a library style cannot have a mask")
        return self


class Submission(RequestBody):
    """One job for each content. Several styles are blended in each picture; a batch paints each by itself."""

    contents: Annotated[list[ContentRef], Field(min_length=1, max_length=MAX_CONTENTS)]
    styles: Annotated[list[StyleRef], Field(max_length=MAX_STYLE_PICTURES)] = Field(
        default=[], description="Empty: the default style of the configuration."
    )
    settings: Settings = Field(
        default={}, description="Settings of the painting, and format, depth and quality."
    )
    priority: Priority = 0


class SubmittedJob(ResponseBody):
    """A job that is in the inbox now."""

    id: str
    name: PrintableText


class Submitted(ResponseBody):
    """The jobs of a submission, in the order of its contents."""

    jobs: list[SubmittedJob]


class Estimate(ResponseBody):
    """The size of a submission or a batch."""

    pictures: int
    seconds: float | None = Field(
        description="Estimated painting time, from earlier pictures; null: unknown."
    )


class CheckResult(ResponseBody):
    """What would be refused; nothing was submitted."""

    problems: list[ErrorBody]
    estimate: Estimate


class Repeat(RequestBody):
    """A job to paint again, with the inputs of an earlier one, which stays as it is, also if it has failed."""

    set: Settings = Field(default={}, description="Settings that replace those of the earlier job.")
    unset: list[str] = Field(default=[], description="Settings that take their defaults.")
    styles: Annotated[list[RepeatedStyle], Field(max_length=MAX_STYLE_PICTURES)] = Field(
        default=[],
        description="Styles that replace those of the earlier job, with all of its masks. Empty: these stay.",
    )
    content_mask: MaskReference = None
    name: str = Field(default="", max_length=200)
    priority: Priority = 0
    other_weights: Annotated[bool, BeforeValidator(_boolean)] = Field(
        default=False, description="Paint it even if the weights differ from those of the picture."
    )


class ActionRequest(RequestBody):
    """A request to the daemon about jobs."""

    action: Verb
    ids: Annotated[list[Identifier], Field(max_length=MAX_ACTED)] = []
    states: list[JobState] = Field(default=[], description="All jobs in these states.")
    batch: str = Field(
        default="",
        max_length=1000,
        description="All jobs of this batch, or those in the states. `cancel` also stops jobs yet to come.",
    )
    set: Settings = Field(default={}, description="For retry: changed settings.")
    unset: list[str] = Field(default=[], description="For retry: settings to remove.")
    priority: Priority | None = Field(default=None, description="For retry and priority.")


class ActionProblem(ErrorBody):
    """Why the action is not possible for a job."""

    id: str


class ActionResult(ResponseBody):
    """What was requested. If nothing was, the response is an error instead."""

    requested: list[str] = Field(description="Ids of jobs.")
    problems: list[ActionProblem]


# Uploads, styles, settings


class UploadInfo(ResponseBody):
    """An uploaded picture, for jobs, batches and the style library."""

    id: str
    name: PrintableText
    bytes: int
    format: str
    width: int
    height: int
    expires: float = Field(description="When it is removed, unless it is used before.")


class StyleInfo(ResponseBody):
    """A style of the library. A style with a problem cannot be used."""

    name: PrintableText
    pictures: int
    problem: PrintableText = Field(description="Why it cannot be used; empty: it can.")
    settings: dict[str, Any] = Field(description="The settings that jobs in this style get.")
    version: int = Field(description="Changes with the first picture.")


class NewStyle(RequestBody):
    """Uploaded pictures that become a style of the library: a file, or a folder if there are several."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    uploads: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_STYLE_PICTURES)]
    settings: Settings = {}


class SettingInfo(ResponseBody):
    """A setting of the painting or of its file."""

    name: str
    kind: Literal["integer", "number", "boolean", "choice", "text", "list", "mapping"]
    default: Any = Field(description="With the configuration of this daemon.")
    allowed: str
    help: str
    choices: list[str]
    minimum: float | None
    maximum: float | None
    main: bool = Field(description="Whether forms show it first; the others are for experts.")


class PresetInfo(ResponseBody):
    """A named set of settings."""

    name: str
    summary: str
    source: str
    values: dict[str, Any]


class SettingsInfo(ResponseBody):
    """Settings and presets."""

    settings: list[SettingInfo]
    presets: list[PresetInfo]


class LimitsInfo(ResponseBody):
    """What the daemon accepts."""

    max_bytes: int = Field(description="The largest file.")
    max_pixels: int = Field(description="The most pixels of a picture.")
    max_side: int = Field(description="The longest side of a picture in pixels.")
    suffixes: list[str] = Field(description="The suffixes of files that can be uploaded.")
    max_contents: int = MAX_CONTENTS
    max_style_pictures: int = MAX_STYLE_PICTURES
    max_batch_pictures: int = Field(description="The most pictures of a batch.")
    max_priority: int = MAX_PRIORITY
    default_style: PrintableText = Field(
        description="The style of submissions that name none; empty: a style is needed."
    )


# Batches


class BatchRequest(RequestBody):
    """Every content in every style with every combination of the swept settings."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    contents: Annotated[list[ContentRef], Field(min_length=1, max_length=MAX_CONTENTS)]
    styles: Annotated[list[StyleRef], Field(min_length=1, max_length=MAX_CONTENTS)]
    settings: Settings = {}
    sweep: Mapping[str, list[Any]] = Field(
        default={}, description="Lists of values by setting; each combination is painted."
    )
    priority: Priority = 0


class BatchInfo(ResponseBody):
    """A batch of the ledger, or one whose file is still in the inbox or was refused."""

    name: PrintableText
    created: float
    updated: float
    counts: dict[JobState, int] = Field(description="The number of its jobs in each state.")
    pictures: int | None = Field(
        description="All of the batch, also those that are no jobs yet; null: their number is unknown yet."
    )
    waiting: bool = Field(
        description="Whether its file is still in the inbox, so that more jobs will come."
    )
    refused: str = Field(
        description="The id of the job that says why the file of the batch was refused; empty: it was not."
    )
    sheet: int = Field(
        description="Changes with the contact sheet (milliseconds since the epoch); 0 before it is made."
    )


class BatchList(ResponseBody):
    """Batches, newest first."""

    batches: list[BatchInfo]


# Access


class Login(RequestBody):
    """A token, for a cookie."""

    token: Annotated[str, Field(min_length=1, max_length=1000)]


class SessionInfo(ResponseBody):
    """The token of this request."""

    name: PrintableText = Field(description="The name of the token; empty: no token is needed.")
    access: Access


class HealthInfo(ResponseBody):
    """Whether a daemon is running, and writes its status."""

    status: Literal["ok", "away", "silent"]
