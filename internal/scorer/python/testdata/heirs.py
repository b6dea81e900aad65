"""A script whose process ends, leaves something behind, or looks for what an earlier one has left."""
import os
import tempfile

mark = os.path.join(tempfile.gettempdir(), "left")


def opens(path):
    try:
        open(path, "rb").close()
        return True
    except OSError:
        return False


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
        if sensor == "looks":
            return [float(os.path.exists(mark))] * len(batch)
        if sensor == "reads":
            return [float(opens("/proc/%d/mem" % os.getppid()))] * len(batch)
    return [0.0] * len(batch)
