"""What a run tells: metrics.csv, TensorBoard and a progress bar."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path

from psld.files import UnreadableFileError, atomic_file, naming_full_disk, read_table, remove_unfinished

__all__ = ["MetricsFile", "MetricsRow", "RunLog"]


@dataclass(frozen=True)
class MetricsRow:
    """One row of metrics.csv: means over the steps since the row before, and where the run stands.

    Attributes:
        step: completed steps.
        images: images seen, repeats counted: completed steps × batch size.
        loss, gradient_norm: means over the interval; the norm is before clipping.
        learning_rate: of the last step.
        images_per_second: of all devices together.
        seconds: training time so far, resumed parts included.
    """

    step: int
    images: int
    loss: float
    gradient_norm: float
    learning_rate: float
    images_per_second: float
    seconds: float


COLUMNS = tuple(field.name for field in fields(MetricsRow))

DIGITS = 18
"""Of a step, so that it is an integer of 64 bits."""


class MetricsFile:
    """A CSV file that grows by a row at a time, each flushed.

    Args:
        path: the file. If it is there, rows after `logged` and torn ones are dropped, and the rest is kept.
        logged: the last step whose row stays; 0 for a new run.

    Raises:
        UnreadableFileError: it is there, and is not a table of such rows.
    """

    def __init__(self, path: Path, logged: int):
        kept = [row for row in _whole_rows(path) if int(row[0]) <= logged]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *kept])
        remove_unfinished(path)
        with atomic_file(path) as file:
            file.write(text.getvalue().encode())
        with naming_full_disk(path):
            self._path, self._file = path, path.open("ab", buffering=0)

    def write(self, row: MetricsRow) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerow([getattr(row, name) for name in COLUMNS])
        content = text.getvalue().encode()
        with naming_full_disk(self._path):
            while content:  # of a disk that is nearly full a write takes a part
                content = content[self._file.write(content) :]

    def close(self) -> None:
        self._file.close()


def _whole_rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    rows = read_table(path, torn=True)
    wrong = next((step for row in rows if len(step := row.get("step", "")) > DIGITS), None)
    if wrong is not None:
        raise UnreadableFileError(f"{path} has a step of {len(wrong)} characters. Delete or repair it.")
    # by name: a run that an older version began may lack a column
    return [[row.get(name, "") for name in COLUMNS] for row in rows if row.get("step", "").isdecimal()]


class RunLog:
    """The three places a run reports to. A context: everything is closed when it ends.

    Args:
        run: the folder of the run.
        start_step: where it starts.
        logged: the last step whose row stays; steps after it are in the first row that is written.
        steps: where it ends.
        batch_size: images a step; the bar counts images.
        tensorboard: write RUN/tensorboard.
        progress: show a bar, if stderr is a terminal.

    Raises:
        ImportError: tensorboard is asked for and not installed.
    """

    def __init__(
        self, run: Path, start_step: int, logged: int, steps: int, batch_size: int, tensorboard: bool, progress: bool
    ):
        from tqdm import tqdm

        writer, self._tensorboard = None, run / "tensorboard"
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            with naming_full_disk(self._tensorboard):
                writer = SummaryWriter(str(self._tensorboard), purge_step=logged + 1)
        self._metrics, self._writer = MetricsFile(run / "metrics.csv", logged), writer
        hidden = None if progress else True  # None: shown on terminals only
        self._images = batch_size
        self._bar = tqdm(
            total=steps * batch_size,
            initial=start_step * batch_size,
            desc=run.name,
            unit=" images",
            unit_scale=True,
            disable=hidden,
        )

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update(self._images)

    def write(self, row: MetricsRow) -> None:
        """Reports a row everywhere."""
        self._metrics.write(row)
        self._bar.set_postfix(loss=f"{row.loss:.4g}", step=row.step, refresh=False)
        if self._writer is not None:
            with naming_full_disk(self._tensorboard):
                for name in COLUMNS[1:]:
                    self._writer.add_scalar(f"training/{name}", getattr(row, name), row.step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._metrics.close()
        if self._writer is not None:
            with naming_full_disk(self._tensorboard):
                self._writer.close()
