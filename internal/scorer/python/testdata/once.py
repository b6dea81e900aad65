"""Ends its process with the first sensor that it is asked for, and with each sensor "always", and notes each try."""
import os


def run(model, rows):
    with open(os.environ["TRIES"], "a+") as f:
        f.seek(0)
        first = f.read() == ""
        f.write(rows["sensor"].iloc[0] + "\n")
    if first or rows["sensor"].iloc[0] == "always":
        os._exit(3)
    return [1.0] * len(rows)
