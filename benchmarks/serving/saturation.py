"""The most that a server answers: wrk, a closed loop of 8 connections, on the other core."""

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.questions import Question
from benchmarks.serving.server_process import LOAD_CORE, on_core

SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Saturation:
    """How many answers wrk got, all of status 200, and how many a second."""

    answers: int
    rate: float


def saturate(port: int, question: Question, seconds: int) -> Saturation:
    """Ask one question again and again; every 50th answer is checked.

    Raises:
        RuntimeError: an answer failed or was wrong. Speed does not excuse it.
    """
    with tempfile.TemporaryDirectory() as folder:
        body, samples = Path(folder) / "body", Path(folder) / "samples"
        body.write_bytes(question.body)
        command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
        command += [f"http://127.0.0.1:{port}{question.path}", "--", str(body), str(samples)]
        command += [text for pair in question.headers.items() for text in pair]
        with on_core(LOAD_CORE):
            run = subprocess.run(command, check=True, capture_output=True, text=True)
        figures = json.loads(run.stdout.strip().splitlines()[-1])
        answers = _parse(samples.read_bytes())
    wrong = sum(not question.is_right(status, answer) for status, answer in answers)
    if figures["failed"] or figures["broken"] or wrong or not answers:
        raise RuntimeError(
            f"{question.path}: expected only right answers; {figures['failed']} failed, "
            f"{figures['broken']} connections broke, {wrong} of {len(answers)} checked are wrong"
        )
    return Saturation(figures["answers"], figures["answers"] / figures["seconds"])


def _parse(content: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each sample that post.lua wrote."""
    answers = []
    while content:
        line, _, rest = content.partition(b"\n")
        status, length = map(int, line.split())
        answers.append((status, rest[:length]))
        content = rest[length:]
    return answers
