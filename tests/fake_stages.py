"""Stages for the watchdog of bench/gpu, most of which misbehave."""

import os
import subprocess
import sys
import time


def tells(report, settings):
    report.row(answer=settings["question"])


def hangs(report, settings):
    for part in "abc":
        if report.begin(part):
            report.row(part=part)
            if part == "b":
                time.sleep(60)


def dies(report, settings):
    for part in "abcd":
        if report.begin(part):
            if part == "b":
                os.abort()
            if part == "c":
                raise RuntimeError("the card fell off")
            report.row(part=part)


def prints_garbage(report, settings):
    sys.stdout.buffer.write(b"\xff\xfe{]\n" * 100)
    sys.exit(3)


def shares(report, settings):
    number, workers = report.share
    for part in "abcdef"[number::workers]:
        report.begin(part)
        report.row(part=part)


def forks(report, settings):
    child = subprocess.Popen(["sleep", "60"])
    report.row(pid=child.pid)
    time.sleep(60)
