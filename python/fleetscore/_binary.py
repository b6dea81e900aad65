"""The program in this package."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import IO, Any, Callable, List, NoReturn, Optional, Sequence, Tuple

from ._errors import KINDS, Error


def path() -> str:
    """The binary's file: that of the wheel, or what FLEETSCORE_BINARY names."""
    named = os.environ.get("FLEETSCORE_BINARY")
    found = named or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "fleetscore")
    if not os.access(found, os.X_OK):
        raise Error("the program %s can't be started" % found, "unavailable",
                    "install the wheel that fits this machine" if not named else "set FLEETSCORE_BINARY to the program, or unset it")
    return found


END_LIMIT = 10.0  # seconds that the program may take to end


def main() -> NoReturn:
    """The command fleetscore: this process becomes the program."""
    program = path()
    os.execv(program, ["fleetscore"] + sys.argv[1:])


def run(args: Sequence[str], good: Tuple[int, ...] = (0,), feed: Optional[Callable[[IO[bytes]], None]] = None) -> None:
    """Runs a command of the program; raises Error with its message unless it ends well.
    feed writes to the program's standard input while the program starts and reads."""
    unfed: Optional[Exception] = None
    with tempfile.TemporaryFile() as said:
        program = subprocess.Popen([path()] + list(args), stdin=subprocess.PIPE if feed else subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=said, env=environment())
        try:
            if feed:
                try:
                    with widened(program.stdin) as pipe:
                        feed(pipe)
                except Exception as e:  # also if the program ended early; its own message is better
                    unfed = e
            code = program.wait()
        except BaseException:  # such as a KeyboardInterrupt
            end(program)
            raise
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    if unfed and (code in good or not isinstance(unfed, OSError)):
        raise unfed
    if code in good:
        return
    lines: List[str] = [line for line in text.splitlines() if not line.startswith("Try '")]
    prefix = "fleetscore %s: " % args[0]
    text = "\n".join(line[len(prefix):] if line.startswith(prefix) else line for line in lines).strip()
    if code < 0:
        text = ("the program was ended by signal %d" % -code) + (": " + text if text else "")
    raise Error(text or "the program ended with exit code %d" % code, "failed" if code == 1 else KINDS.get(code, "internal"))


def end(program: "subprocess.Popen[bytes]") -> None:
    """Lets the program end its own processes and remove its files, and kills it if that takes long."""
    program.terminate()
    try:
        program.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also after another KeyboardInterrupt
        program.kill()
        program.wait()


def widened(pipe: Any) -> IO[bytes]:
    """A pipe that holds more, where the system allows it, so that the two processes wait less often for each other."""
    try:
        import fcntl

        fcntl.fcntl(pipe.fileno(), 1031, 1 << 20)  # F_SETPIPE_SZ of Linux, which Python names since 3.10
    except (ImportError, OSError):
        pass
    return pipe  # type: ignore[no-any-return]


def environment() -> dict:
    """This process's variables, without those that would set flags of the command."""
    keep = ("FLEETSCORE_CPU",)
    return {k: v for k, v in os.environ.items() if not k.startswith("FLEETSCORE_") or k in keep}
