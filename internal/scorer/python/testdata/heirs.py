"""A script whose process ends, leaves something behind, or looks for what an earlier one has left."""
import os
import tempfile
import time

mark = os.path.join(tempfile.gettempdir(), "left")


def opens(path):
    try:
        open(path, "rb").close()
        return True
    except OSError:
        return False


def orphan():
    """The number of a process that has lost its parent and then ended."""
    ended, write = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild:
            os.write(write, b"%d" % grandchild)
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    number = b""
    while True:
        part = os.read(ended, 100)
        if not part:
            return int(number)
        number += part


def stays(process):
    """Whether a process that has ended is still listed after a while."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        if not os.path.exists("/proc/%d" % process):
            return False
    return True


def run(batch):
    for sensor in batch.sensor.unique():
        if sensor == "quits":
            os._exit(3)
        if sensor == "leaves":
            open(mark, "w").close()
            os._exit(3)
        if sensor == "stops":
            os.kill(os.getppid(), 19)
            os._exit(3)
        if sensor == "kills":
            os.kill(os.getppid(), 9)
            while True:
                pass
        if sensor == "forks":
            return [float(stays(orphan()))] * len(batch)
        if sensor == "looks":
            return [float(os.path.exists(mark))] * len(batch)
        if sensor == "reads":
            return [float(opens("/proc/%d/mem" % os.getppid()))] * len(batch)
    return [0.0] * len(batch)
