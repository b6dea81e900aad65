"""The program in this package."""
from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import IO, Callable, List, NoReturn, Sequence, Tuple, TypeVar

from ._errors import KINDS, Error

T = TypeVar("T")


def path() -> str:
    """The binary's file: that of the wheel, or what FLEETSCORE_BINARY names."""
    named = os.environ.get("FLEETSCORE_BINARY")
    found = named or os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", "fleetscore")
    if not os.access(found, os.X_OK):
        raise Error("the program %s can't be started" % found, "unavailable",
                    "install the wheel that fits this machine" if not named else "set FLEETSCORE_BINARY to the program, or unset it")
    return found


READY = b"ready\n"  # says that all rows are there

END_LIMIT = 10.0  # seconds that the program may take to end


def main() -> NoReturn:
    """The command fleetscore: this process becomes the program."""
    program = path()
    os.execv(program, ["fleetscore"] + sys.argv[1:])


def run(args: Sequence[str], files: Sequence[IO[bytes]], feed: Callable[[], None], wait: Callable[[], None],
        use: Callable[[bytes], T], good: Tuple[int, ...] = (0,)) -> T:
    """Runs a command of the program that hands over by files (docs/formats/frame.md), and gives what use makes of its
    answer; raises Error with its message unless it ends well. feed fills files while the program starts, wait works while it scores,
    and use while it ends."""
    with memory() as said:
        program = subprocess.Popen([path()] + list(args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=environment(),
                                   pass_fds=[f.fileno() for f in files])
        try:
            with program.stdin, program.stdout:
                feed()
                try:
                    program.stdin.write(READY)
                    program.stdin.close()
                except OSError:  # it has ended, and says why
                    pass
                wait()
                answer = program.stdout.read()
            made = use(answer) if answer else None
            code = program.wait()
        except BaseException:  # such as a KeyboardInterrupt
            end(program)
            raise
        if made is not None and code in good:
            return made
        said.seek(0)
        text = said.read().decode("utf-8", "replace")
    lines: List[str] = [line for line in text.splitlines() if not line.startswith("Try '")]
    prefix = "fleetscore %s: " % args[0]
    text = "\n".join(line[len(prefix):] if line.startswith(prefix) else line for line in lines).strip()
    if code < 0:
        text = ("the program was ended by signal %d" % -code) + (": " + text if text else "")
    raise Error(text or "the program ended with exit code %d" % code, "failed" if code == 1 else KINDS.get(code, "internal"))


def memory() -> IO[bytes]:
    """A file without a name, in memory where the system allows it: nothing of it is left when the last process that has it open ends."""
    try:
        return open(os.memfd_create("fleetscore"), "w+b")
    except (AttributeError, OSError):
        return tempfile.TemporaryFile()


def take(file: IO[bytes], size: int) -> None:
    """Takes memory for a file of memory() that the program writes to meanwhile. If it can't be taken, the program says so.

    Nothing is done for files on disks: where these can't take room, the C library writes zeros instead, over what the
    program has written.
    """
    try:
        if os.readlink("/proc/self/fd/%d" % file.fileno()).startswith("/memfd:"):
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        pass


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


def environment() -> dict:
    """This process's variables, without those that would set flags of the command."""
    keep = ("FLEETSCORE_CPU",)
    return dict({"GOGC": "off"}, **{k: v for k, v in os.environ.items() if not k.startswith("FLEETSCORE_") or k in keep})
