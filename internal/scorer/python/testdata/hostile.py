"""A script that attacks: each sensor is the name of an attack, and is predicted 1 if that worked.

ATTACK, in JSON, says what there is to attack. Nothing here imports more than Python has.
"""
import ctypes
import glob
import json
import mmap
import os
import signal
import socket
import sys

target = json.loads(os.environ["ATTACK"])


def data():
    return target["secret"] in open(target["data"]).read()


def token():
    return target["secret"] in open(target["token"]).read()


def write():
    open(target["data"] + ".changed", "w").close()
    return True


def environment():
    for file in glob.glob("/proc/[0-9]*/environ"):
        try:
            if "NODE_SECRET=" + target["secret"] in open(file).read():
                return True
        except OSError:
            pass
    return False


def connect(address):
    with socket.create_connection(address, 2):
        return True


def loopback():
    return connect(target["loopback"])


def outside():
    return connect(target["outside"])


def unix():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(target["unix"])
        return True


def trace():
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.ptrace(0x4206, target["traced"], 0, 0) == 0  # PTRACE_SEIZE


def kill():
    os.kill(target["killed"], signal.SIGKILL)
    return True


def kernel():
    """The kernel's keyrings, which aren't divided by namespaces."""
    return ctypes.CDLL(None).syscall(248 if os.uname().machine == "x86_64" else 217, b"user", b"left", b"x", 1, -2) > 0


def outlive():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(100)", target["marker"]])
        os._exit(0)
    os.wait()
    return True


def disk():
    written, names = 0, []
    for folder in (os.environ["TMPDIR"], "/tmp", "/dev/shm", "/var/tmp"):
        for i in range(12):
            name = os.path.join(folder, "%s-%d" % (target["marker"], i))
            try:
                with open(name, "wb") as f:
                    names.append(name)
                    f.write(b"x" * (4 << 20))
                written += 4 << 20
            except OSError:
                break
    for name in names:
        os.unlink(name)
    return written > target["disk"]


def memory():
    """Memory that the limit of the process doesn't count."""
    mmap.mmap(-1, 1 << 20)
    return True


def run(batch):
    worked = {}
    for name in batch.sensor.unique():
        try:
            worked[name] = float(globals()[name]())
        except Exception as e:
            print(name, "failed:", type(e).__name__, e)
            worked[name] = 0.0
    return batch.sensor.map(worked).tolist()
