"""Runs the notebook of the examples: notebook.py FILE FOLDER. It prints what the cells print."""
import os
import socket
import sys

import nbformat
from nbclient import NotebookClient

file, folder = sys.argv[1:]
notebook = nbformat.read(file, as_version=4)
nbformat.validate(notebook)
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % s.getsockname()[1]
replaced = 0
for cell in notebook.cells:
    if "parameters" in cell.metadata.get("tags", []):
        cell.source = "address = %r" % address
        replaced += 1
    assert cell.cell_type != "code" or not cell.outputs, "the notebook is kept without outputs"
assert replaced == 1
os.mkdir(folder)
os.environ["PATH"] = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
for cell in notebook.cells:
    for out in cell.get("outputs", []):
        if out.output_type == "stream" and out.name == "stdout":
            print(out.text, end="")
        elif "data" in out and "text/plain" in out.data:
            print(out.data["text/plain"])
