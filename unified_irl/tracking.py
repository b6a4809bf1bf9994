"""What a person watches while a run goes on: metrics in a file always; TensorBoard, wandb and a bar on request."""

from __future__ import annotations

import secrets
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from unified_irl.errors import UserError

if TYPE_CHECKING:
    from unified_irl.rundir import RunDirectory

_MAX_HEADLINES = 3
_LONGEST_TAG = 64
"""Of wandb's."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where metrics go besides the run's metrics.jsonl, and what the terminal shows."""

    tensorboard: bool = False
    """Also write TensorBoard event files, to the run's folder `tensorboard`."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Also log to Weights & Biases; `offline` writes to the run's folder `wandb`, for `wandb sync` later."""
    wandb_project: str = "unified-irl"
    """The wandb project."""
    wandb_group: str = ""
    """The wandb group, for example the seeds of one experiment; empty for none, or in a comparison for its name."""
    wandb_tags: tuple[str, ...] = ()
    """Tags of the wandb run; in a comparison task, method and seed come to them."""
    progress: Literal["auto", "bar", "lines", "quiet"] = "auto"
    """What to show: a progress bar, plain lines, or nothing; `auto` is a bar on a terminal and lines elsewhere."""
    print_every_seconds: float = 5
    """Seconds between two progress lines, at the least."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How a run is shown among others. They lie beside its config (`labels.json`), because they decide nothing."""

    name: str
    """For people."""
    group: str = ""
    """The comparison it belongs to."""
    kind: str = ""
    """What it does there: the method."""
    tags: tuple[str, ...] = ()
    """What to find it by."""


class _Sink(Protocol):
    def log(self, metrics: dict[str, float], step: int) -> None: ...
    def close(self, failed: bool) -> None: ...


class _Display(Protocol):
    def show(self, done: int, total: int | None, headline: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class Tracker:
    """Sends the metrics of one run everywhere they are wanted.

    `first_step` is the first step that will be logged: after a resume, what was logged from there on is superseded.
    """

    def __init__(self, config: TrackingConfig, run: RunDirectory, *, first_step: int = 0) -> None:
        self._run = run
        self._sinks: list[_Sink] = []
        self._display: _Display | None = None
        try:
            if config.tensorboard:
                self._sinks.append(_TensorBoard(run, first_step))
            if config.wandb != "disabled":
                self._sinks.append(_Wandb(config, run))
        except BaseException:
            self.close(failed=True)
            raise
        self._display = _display(config)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record the metrics of a step."""
        self._run.append_metrics({"step": step, **metrics})
        for sink in self._sinks:
            sink.log(metrics, step)

    def progress(self, done: int, total: int | None, headline: dict[str, float]) -> None:
        """Show how far the run is, with the first few headline metrics. Cheap enough to call every round."""
        if self._display:
            self._display.show(done, total, headline)

    def close(self, failed: bool = False) -> None:
        """Flush and close everything but the run directory, which belongs to the caller."""
        display, self._display = self._display, None
        if display:
            display.close()
        while self._sinks:
            self._sinks.pop().close(failed)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)


class _TensorBoard:
    def __init__(self, run: RunDirectory, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError("TensorBoard is not installed. Run: pip install tensorboard") from error
        writer: Any = SummaryWriter
        self._writer = writer(str(run.path / "tensorboard"), purge_step=first_step or None)

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        self._writer.close()


class _Wandb:
    """A wandb run with one identity per run directory, so that a resumed run goes on in the same charts."""

    def __init__(self, config: TrackingConfig, run: RunDirectory) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError("Weights & Biases is not installed. Run: pip install wandb") from error
        labels = _labels(run)
        try:
            self._run = wandb.init(
                project=config.wandb_project,
                group=config.wandb_group or labels.group or None,
                job_type=labels.kind or None,
                tags=[tag[:_LONGEST_TAG] for tag in dict.fromkeys((*config.wandb_tags, *labels.tags))],
                name=labels.name,
                id=_wandb_id(run),
                dir=run.path,
                config=run.config,
                mode=config.wandb,
                # Offline there is nothing to ask whether the run exists, and wandb would warn at each start.
                resume="allow" if config.wandb == "online" else None,
                # Capturing the console would wrap stderr, which the progress bar draws on.
                settings=wandb.Settings(console="off", silent=config.wandb == "offline"),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb could not start: {error}. Run: wandb login. Or choose wandb offline and sync later."
            ) from error

    def log(self, metrics: dict[str, float], step: int) -> None:
        # wandb drops steps it has already seen; after a resume those are the same numbers, computed again.
        self._run.log(metrics, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _labels(run: RunDirectory) -> Labels:
    from unified_irl.rundir import LABELS
    from unified_irl.serialise import from_json, read_json

    path = run.path / LABELS
    return from_json(Labels, read_json(path), str(path)) if path.exists() else Labels(name=run.path.name)


def _wandb_id(run: RunDirectory) -> str:
    from unified_irl.serialise import write_text

    path = run.path / "wandb_id.txt"
    if not path.exists():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text().strip()


def _display(config: TrackingConfig) -> _Display | None:
    kind = config.progress
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "lines"
    if kind == "quiet":
        return None
    return _Bar() if kind == "bar" else _Lines(config.print_every_seconds)


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), "{task.fields[news]}")
        self._progress = Progress(TextColumn("round"), *columns, console=Console(stderr=True))
        self._task = self._progress.add_task("round", total=None, news="")
        self._progress.start()

    def show(self, done: int, total: int | None, headline: dict[str, float]) -> None:
        self._progress.update(self._task, completed=done, total=total, news=_news(headline))

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """A plain line on stderr now and then, for logs and pipes."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._started = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._last_time: float | None = None

    def show(self, done: int, total: int | None, headline: dict[str, float]) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = (now, done)  # after a resume, the speed is that of the rounds done here
        is_due = self._last_time is None or now - self._last_time >= self._every_seconds
        if is_due or done == total:
            self._last_time = now
            print(self._line(now, done, total, headline), file=sys.stderr, flush=True)

    def _line(self, now: float, done: int, total: int | None, headline: dict[str, float]) -> str:
        assert self._first is not None
        since, first = self._first
        parts = [f"round {done}" + (f"/{total}" if total is not None else ""), f"elapsed {_clock(now - self._started)}"]
        if total is not None and first < done < total:
            parts.append(f"left {_clock((now - since) / (done - first) * (total - done))}")
        return "  ".join([*parts, _news(headline)]).rstrip()

    def close(self) -> None:
        pass


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _news(headline: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in list(headline.items())[:_MAX_HEADLINES])
