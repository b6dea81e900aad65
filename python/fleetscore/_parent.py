"""The process that makes the workers, which _worker.py describes. It imports libraries and never runs a model.

It takes orders through the socket that is its file descriptor 3 (docs/formats/worker.md). This text is
run as a module before NumPy is there, so it uses Python's own modules alone.
"""
import array
import gc
import importlib
import json
import os
import shutil
import socket
import struct
import sys


class Parent:
    """Makes the workers, one after the other, as long as the other program asks for them."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=3)
        # Processes that lose their parent become this process's, so that they are found and ended;
        # and this process's memory is nobody else's to read.
        self.can_fork = sys.platform.startswith("linux") and control_process(36, 1) and control_process(4, 0)
        self.free = None  # what was free in the folder that workers write to, before the first of them
        self.modules = frozenset()  # those that a worker finds imported

    def run(self):
        """Returns in each worker, with its open files; None in the parent, at the end."""
        self.tell({})
        while True:
            order, files = self.listen()
            if order is None:
                return None
            self.reap()
            shutil.rmtree(order["models"], ignore_errors=True)  # of the last worker
            free = room(order["folder"])
            clean, threaded = self.free in (None, free), ""
            if clean:
                threaded = self.prepare(order)
                self.free = room(order["folder"])
            self.tell({"clean": clean, "forks": self.can_fork, "threaded": threaded})
            decision = self.listen()[0]
            if not clean or decision is None:
                return None
            forks = decision["fork"]
            parent = os.getpid()
            pid = os.fork() if forks else 0
            if pid == 0:
                if forks and not (control_process(1, 9) and os.getppid() == parent):  # it ends with its parent
                    os._exit(70)
                control_process(4, 1)
                self.socket.close()
                return files
            for file in files:
                os.close(file)
            ended = 0
            while ended != pid:  # orphans of the worker may end before it; until they are waited for, they count as processes
                ended, status = os.waitpid(-1, 0)
            signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            self.tell({"signal": signal, "code": -1 if signal else os.WEXITSTATUS(status)})

    def prepare(self, order):
        """Imports what a worker will need, as it would itself. Stops at a module that starts a thread, and names its package."""
        threaded = ""
        for names, path in (order["first"], []), (order["import"], order["path"]):
            for folder in reversed(path):
                if folder not in sys.path:
                    sys.path.insert(0, folder)
            for name in names:
                if threaded or name in sys.modules:
                    continue
                try:
                    importlib.import_module(name)
                except BaseException:  # a worker that needs it says what is wrong
                    pass
                if threads() > 1:
                    threaded = name.partition(".")[0]
        if len(self.modules) != len(sys.modules):
            self.modules = frozenset(sys.modules)
        gc.collect()
        gc.freeze()  # what was imported is never looked at again
        return threaded

    def tell(self, message):
        data = json.dumps(message).encode()
        self.socket.sendall(struct.pack("<I", len(data)) + data)

    def listen(self):
        """The next order with its open files; None if there is none any more."""
        files = array.array("i")
        head, rights, _, _ = self.socket.recvmsg(4, socket.CMSG_LEN(16 * files.itemsize))
        for _, _, data in rights:
            files.frombytes(data[:len(data) - len(data) % files.itemsize])
        data = b""
        while len(head) == 4 and len(data) < struct.unpack("<I", head)[0]:
            part = self.socket.recv(struct.unpack("<I", head)[0] - len(data))
            if not part:
                break
            data += part
        return (json.loads(data.decode()), list(files)) if data else (None, [])

    def reap(self):
        """Forgets processes that have ended, which workers have left behind."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except OSError:
            pass


def control_process(option, value):
    """prctl: 1 ends this process by a signal when its parent ends; 4 says whether others may look into it; 36 makes it the parent of orphans."""
    try:
        import ctypes
        return ctypes.CDLL(None).prctl(*map(ctypes.c_ulong, (option, value, 0, 0, 0))) == 0
    except Exception:
        return False


def threads():
    """How many threads this process has; 1 where it may not know."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def room(folder):
    """What is free in a folder in memory, which changes with each file that is made there; None for no folder."""
    if not folder:
        return None
    st = os.statvfs(folder)
    return st.f_bfree, st.f_ffree
