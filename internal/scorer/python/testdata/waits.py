"""A script for single models. The model of the sensor "waits" ends when a file is there, and that of "quits" ends its process."""
import os


def run(model, rows):
    sensor = rows["sensor"].iloc[0]
    while sensor == "waits" and not os.path.exists(os.environ["GO_ON"]):
        pass
    if sensor == "quits":
        os._exit(3)
    return [float(os.getpid())] * len(rows)
