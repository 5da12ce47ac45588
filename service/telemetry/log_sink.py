"""Where log lines go: a thread writes them, so that a pipe that nobody reads stops the log and nothing else."""

from __future__ import annotations

import atexit
import errno
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

QUEUE_BYTES_MAX = 2**20
"""Bytes of the lines that wait for the thread; further lines are dropped and counted."""
RETRY_INTERVAL = 1.0
"""Seconds between two attempts at a stream that cannot be written."""
_GONE = {errno.EPIPE, errno.EBADF}
"""Errors after which nothing can be written to a stream any more: its reader has gone, or it is closed."""


class LogSink:
    """Writes lines to a stream and never waits for it; the work goes on without its log.

    A stream without a descriptor, such as a test's, is written at once.

    Args:
        stream: where the lines go; None if the process was started without it.

    Attributes:
        render_dropped: the line that reports a number of dropped lines.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.render_dropped: Callable[[int], str] = "{} log lines dropped".format
        self._stream = stream
        self._queue: deque[tuple[bytes, int]] = deque()  # each with the number of lines that are lost with it
        self._size = self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = self._partial_line = self._closed = False
        self._gone = stream is None
        self._descriptor: int | None = None
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        if stream is not None:
            try:
                stream.flush()  # the thread writes past the stream's buffer
                self._descriptor = stream.fileno()
            except (OSError, ValueError, AttributeError):
                self._descriptor = None

    @classmethod
    def for_stream(cls, stream: TextIO | None, before: LogSink | None) -> LogSink:
        """The sink of a stream: the one before if it has that stream, so that no line overtakes another."""
        if before is not None and before.writes_to(stream):
            return before
        if before is not None:
            before.close()
        return cls(stream)

    def writes_to(self, stream: TextIO | None) -> bool:
        """Whether lines still go to this stream."""
        return self._stream is stream and not self._gone

    def write(self, line: str) -> None:
        """Write one line, as soon as the stream takes it."""
        if self._gone:
            return
        if self._descriptor is None:
            self._write_at_once(line)
            return
        data = f"{line}\n".encode(self._encoding, "backslashreplace")
        with self._changed:
            full = self._queue and self._size + len(data) > QUEUE_BYTES_MAX
            if full or (self._dropped and not self._flows):
                self._dropped += 1
                return
            self._report_dropped()
            self._put(data, 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.drain, 1.0)

    debug = info = warning = warn = error = critical = exception = log = msg = write

    def drain(self, timeout: float) -> None:
        """Wait until everything is written, so many seconds at most.

        It takes no lock: a signal handler that calls it may have interrupted its holder.
        """
        until = time.monotonic() + timeout
        while (self._queue or self._busy) and not self._gone and time.monotonic() < until:
            time.sleep(0.002)

    def close(self) -> None:
        """End the thread when everything is written; waits for a second at most."""
        self.drain(1.0)
        self._closed = True
        with self._changed:
            self._changed.notify_all()

    @property
    def _flows(self) -> bool:
        return self._size <= QUEUE_BYTES_MAX // 2

    def _report_dropped(self) -> None:
        """Queue the number of dropped lines: they came after all that waits now, and before every later line."""
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._put(f"{self.render_dropped(count)}\n".encode(self._encoding, "backslashreplace"), count)

    def _put(self, data: bytes, lines: int) -> None:
        self._queue.append((data, lines))
        self._size += len(data)
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                self._busy = True
                data, lines = self._queue.popleft()
                self._size -= len(data)
            written = self._write(data)
            with self._changed:
                if self._gone:
                    self._queue.clear()
                    return
                if not written:
                    self._dropped += lines
                elif self._flows:
                    self._report_dropped()

    def _write(self, data: bytes) -> bool:
        """Write a line to its end; whether it was written."""
        assert self._descriptor is not None  # noqa: S101 - there is no thread without it
        rest = b"\n" + data if self._partial_line else data
        while rest:
            try:
                count = os.write(self._descriptor, rest)
            except BlockingIOError:  # another process made the pipe non-blocking
                select.select([], [self._descriptor], [], RETRY_INTERVAL)
                continue
            except OSError as error:
                self._gone = error.errno in _GONE
                return False
            self._partial_line = count < len(rest)
            rest = rest[count:]
        return True

    def _write_at_once(self, line: str) -> None:
        assert self._stream is not None  # noqa: S101 - it would be gone
        with self._changed:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                return
