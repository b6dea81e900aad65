"""Answers, for each question on stdin, what croniter and cronsim say is due.

A question is a line [cron line, zone, time]; an answer is a line with two lists of
times in UTC, or null for a library that refuses the cron line.
"""

import json
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

from croniter import croniter
from cronsim import CronSim

COUNT = 8


def with_croniter(line, at):
    # Its object returns local times, from which it can't continue in a fold.
    due = croniter(line, at, max_years_between_matches=101)
    return [datetime.fromtimestamp(due.get_next(float), timezone.utc) for _ in range(COUNT)]


def with_cronsim(line, at):
    due = CronSim(line, at)
    return [next(due).astimezone(timezone.utc) for _ in range(COUNT)]


for question in sys.stdin:
    line, zone, after = json.loads(question)
    at = datetime.fromisoformat(after).astimezone(ZoneInfo(zone))
    answer = []
    for library in (with_croniter, with_cronsim):
        try:
            answer.append([t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in library(line, at)])
        except Exception:
            answer.append(None)
    print(json.dumps(answer))
