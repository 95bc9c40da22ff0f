"""What signals and the time limit ask of a run, and how several ranks obey after the same step.

A process on its own obeys after each step. Of several ranks one may be asked alone. Each adds what it is asked to the
loss of every step, which is summed over the ranks anyway; all read these sums at the same steps, so all stop or save
after the same step: that is the end of a log window. Nothing here waits for the device.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from reference_trainer.distributed.ranks import ALONE, Ranks

# how many ranks ask for it; of those that were asked to stop, and of those whose loss is not finite, also their numbers
ASKED = ("interrupted", "terminated", "out_of_time", "save_asked", "asked_rank", "odd_losses", "odd_rank")


class Received(Protocol):
    """The signals that this process has received."""

    received: signal.Signals | None

    def take_save(self) -> bool:
        """Whether a checkpoint was requested since the last call."""


def odd_rank(sums: Mapping[str, float]) -> int | None:
    """The one rank whose loss is not finite; None if there is none, or several, or the ranks shared nothing."""
    return round(sums["odd_rank"]) if sums.get("odd_losses") == 1 else None


class Requests:
    """What this rank is asked, and what all ranks know that any of them was asked.

    began: when the time limit, in seconds, began to run. launcher: the process that started this rank, whose end is
    taken for a SIGTERM: nobody else could stop the ranks together.
    """

    def __init__(self, signals: Received, time_limit: float | None = None, ranks: Ranks = ALONE) -> None:
        self.signals, self.time_limit, self.ranks = signals, time_limit, ranks
        self.began = time.monotonic()
        self.launcher = os.getppid()
        self._agreed: signal.Signals | None = None
        self.asked_rank: int | None = None  # the one rank that was sent it; None: several, or a process on its own
        self._time_is_up = self._save = False

    # --- what this process sees -------------------------------------------------------------------------

    def _received(self) -> signal.Signals | None:
        orphaned = self.ranks.world > 1 and os.getppid() != self.launcher
        return self.signals.received or (signal.SIGTERM if orphaned else None)

    def _is_out_of_time(self) -> bool:
        return self.time_limit is not None and time.monotonic() - self.began >= self.time_limit

    def _now(self) -> list[float]:
        """What this rank is asked now, as the first numbers of ASKED."""
        got, save = self._received(), self.signals.take_save()
        place = 0.0 if got is None else float(self.ranks.rank)
        asks = (got is signal.SIGINT, got is signal.SIGTERM, self._is_out_of_time(), save)
        return [*map(float, asks), place]

    def with_loss(self, loss: Tensor) -> dict[str, Tensor]:
        """The mean of a step's loss over all ranks, and the sums of ASKED, by name: scalars on the device.

        Constants are written by kernels of their own: a copy from the host could wait.
        """
        if self.ranks.world == 1:
            return {"loss": loss}
        odd = torch.isfinite(loss).logical_not().to(loss.dtype)
        asks = [torch.full_like(loss, number) for number in self._now()]
        numbers = torch.stack([loss, *asks, odd, odd * self.ranks.rank])
        self.ranks.mean(numbers)
        names = zip(ASKED, numbers[1:] * self.ranks.world, strict=True)
        return {"loss": numbers[0], **dict(names)}

    # --- what all ranks know ----------------------------------------------------------------------------

    def learn(self, sums: Mapping[str, float]) -> None:
        """Take over what the ranks were asked, from the sums of a step that was read."""
        if not sums:
            return
        stops = sums["interrupted"] + sums["terminated"]
        if stops and self._agreed is None:
            self._agreed = signal.SIGTERM if sums["terminated"] else signal.SIGINT
            self.asked_rank = round(sums["asked_rank"]) if stops == 1 else None
        self._time_is_up = self._time_is_up or sums["out_of_time"] > 0
        self._save = self._save or sums["save_asked"] > 0

    def stop(self) -> bool:
        """Whether to stop after the step that was just trained."""
        time_is_up = self._is_out_of_time() if self.ranks.world == 1 else self._time_is_up
        return self.stop_signal is not None or time_is_up

    def take_save(self) -> bool:
        """Whether a checkpoint was requested since the last call."""
        if self.ranks.world == 1:
            return self.signals.take_save()
        asked, self._save = self._save, False
        return asked

    def interrupted(self) -> bool:
        """Whether a signal stops an evaluation now; all ranks ask together, and hear the same."""
        if self.ranks.world > 1 and self._agreed is None:
            self.learn(dict(zip(ASKED, self.ranks.sums([*self._now(), 0.0, 0.0]), strict=True)))
        return self.stop_signal is not None

    def signals_here(self) -> bool:
        """Whether this process was told to stop; nobody else is asked."""
        return self._received() is not None

    @property
    def stop_signal(self) -> signal.Signals | None:
        """The signal that stops the run, as far as all ranks know."""
        return self.signals.received if self.ranks.world == 1 else self._agreed

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal that stopped the run, as in a shell; 0 without a signal."""
        return 0 if self.stop_signal is None else 128 + self.stop_signal
