"""The program in this package."""
from __future__ import annotations

import os
import subprocess
import sys
from typing import List, NoReturn, Sequence, Tuple

from ._errors import KINDS, Error


def path() -> str:
    """The binary's file: that of the wheel, or what FLEETSCORE_BINARY names."""
    named = os.environ.get("FLEETSCORE_BINARY")
    found = named or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "fleetscore")
    if not os.access(found, os.X_OK):
        raise Error("the program %s can't be started" % found, "unavailable",
                    "install the wheel that fits this machine" if not named else "set FLEETSCORE_BINARY to the program, or unset it")
    return found


def main() -> NoReturn:
    """The command fleetscore: this process becomes the program."""
    program = path()
    os.execv(program, ["fleetscore"] + sys.argv[1:])


def run(args: Sequence[str], good: Tuple[int, ...] = (0,)) -> "subprocess.CompletedProcess[str]":
    """Runs a command of the program; raises Error with its message unless it ends well."""
    done = subprocess.run([path()] + list(args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="utf-8", errors="replace", env=environment())
    if done.returncode in good:
        return done
    lines: List[str] = [line for line in done.stderr.splitlines() if not line.startswith("Try '")]
    prefix = "fleetscore %s: " % args[0]
    text = "\n".join(line[len(prefix):] if line.startswith(prefix) else line for line in lines).strip()
    if done.returncode < 0:
        text = ("the program was ended by signal %d" % -done.returncode) + (": " + text if text else "")
    raise Error(text or "the program ended with exit code %d" % done.returncode, "failed" if done.returncode == 1 else KINDS.get(done.returncode, "internal"))


def environment() -> dict:
    """This process's variables, without those that would set flags of the command."""
    keep = ("FLEETSCORE_CPU",)
    return {k: v for k, v in os.environ.items() if not k.startswith("FLEETSCORE_") or k in keep}
