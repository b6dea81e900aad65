"""A script that leaves a process behind: for the sensor "leaves" with a session of its own and without a parent, for "child" a child.

The process sleeps for as many seconds as SECONDS says, by which a test finds it.
"""
import os
import subprocess


def run(batch):
    for sensor in batch.sensor.unique():
        if sensor == "child":
            subprocess.Popen(["sleep", os.environ["SECONDS"]])
        if sensor == "leaves":
            first = os.fork()
            if first == 0:
                os.setsid()
                subprocess.Popen(["sleep", os.environ["SECONDS"]])
                os._exit(0)
            os.waitpid(first, 0)
    return [0] * len(batch)
