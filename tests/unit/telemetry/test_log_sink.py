"""The log's thread: a stream that nobody reads, that is full, or that has gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from service.telemetry import log_sink
from service.telemetry.log_sink import LogSink

LINE = "x" * 999


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """A pipe's reading and writing end."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as out, open(writer, "w", encoding="utf-8") as into:  # noqa: PTH123
        yield out, into


def test_a_pipe_that_nobody_reads_drops_lines_and_counts_them(
    pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing never waits; lines beyond the bound are dropped, and their number is logged there."""
    monkeypatch.setattr(log_sink, "QUEUE_BYTES_MAX", 50_000)
    out, into = pipe
    sink = LogSink(into)
    for number in range(500):
        sink.write(f"{number:04} {LINE}")
    sink.drain(0.05)  # nobody reads: it gives up
    written: list[int] = []
    dropped = 0
    while len(written) + dropped < 500:
        line = out.readline()
        if line.endswith(" log lines dropped\n"):  # again where the thread took a few lines in between
            dropped += int(line.split(" ")[0])
        else:
            written.append(int(line[:4]))
    sink.write("after")
    assert out.readline() == "after\n"
    assert written == sorted(written)
    assert written
    assert dropped


def test_a_full_disk_is_tried_again(pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that could not be written are counted, and reported once the disk has room."""
    out, into = pipe
    sink, write, full = LogSink(into), os.write, [True]

    def failing(descriptor: int, data: bytes) -> int:
        if full:
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", failing)
    for _ in range(3):
        sink.write("lost")
        sink.drain(5)
    full.clear()
    sink.write("kept")
    assert [out.readline(), out.readline()] == ["3 log lines dropped\n", "kept\n"]


def test_a_non_blocking_pipe_is_waited_for(pipe: tuple[TextIO, TextIO]) -> None:
    """A pipe that another process made non-blocking loses no line."""
    out, into = pipe
    os.set_blocking(into.fileno(), False)
    sink = LogSink(into)
    for _ in range(200):
        sink.write(LINE)
    assert [out.readline() for _ in range(200)] == [f"{LINE}\n"] * 200


def test_a_stream_that_has_gone_stops_the_log() -> None:
    """Without a reader, or without a stream, nothing is kept for it."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as into:  # noqa: PTH123
        for sink in (LogSink(into), LogSink(None)):
            sink.write("x")
            sink.drain(5)
            sink.write("x")
            assert not sink.writes_to(into)
            assert not sink._queue


def test_a_stream_keeps_its_sink(pipe: tuple[TextIO, TextIO]) -> None:
    """A reload continues with the same queue, so that no line overtakes another."""
    out, into = pipe
    sink = LogSink(into)
    assert LogSink.for_stream(into, sink) is sink
    assert LogSink.for_stream(out, sink) is not sink
