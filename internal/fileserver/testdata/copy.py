"""Reads a folder over NFS with libnfs, without a mount, and prints a line for each file:
its SHA-256 and its name. With a second argument it copies the files into that folder."""
import ctypes, hashlib, os, sys

nfs = ctypes.CDLL("libnfs.so.13")


class Entry(ctypes.Structure):
    pass


Entry._fields_ = [("next", ctypes.POINTER(Entry)), ("name", ctypes.c_char_p), ("inode", ctypes.c_uint64),
                  ("type", ctypes.c_uint32), ("mode", ctypes.c_uint32), ("size", ctypes.c_uint64)]
nfs.nfs_init_context.restype = nfs.nfs_parse_url_dir.restype = ctypes.c_void_p
nfs.nfs_get_error.restype = ctypes.c_char_p
nfs.nfs_readdir.restype = ctypes.POINTER(Entry)
context = ctypes.c_void_p(nfs.nfs_init_context())


def check(result, what):
    if result < 0:
        sys.exit("%s: %s" % (what, nfs.nfs_get_error(context).decode()))
    return result


class Url(ctypes.Structure):
    _fields_ = [("server", ctypes.c_char_p), ("path", ctypes.c_char_p), ("file", ctypes.c_char_p)]


url = nfs.nfs_parse_url_dir(context, sys.argv[1].encode())
parts = ctypes.cast(url, ctypes.POINTER(Url)).contents
check(nfs.nfs_mount(context, parts.server, parts.path), "mount")
buffer = ctypes.create_string_buffer(1 << 20)


def names(folder):
    handle = ctypes.c_void_p()
    check(nfs.nfs_opendir(context, folder, ctypes.byref(handle)), "list %r" % folder)
    while entry := nfs.nfs_readdir(context, handle):
        yield entry.contents.name, entry.contents.type == 2
    nfs.nfs_closedir(context, handle)


def read(name):
    handle = ctypes.c_void_p()
    check(nfs.nfs_open(context, name, os.O_RDONLY, ctypes.byref(handle)), "open %r" % name)
    data = b""
    while n := check(nfs.nfs_read(context, handle, ctypes.c_uint64(len(buffer)), buffer), "read %r" % name):
        data += buffer.raw[:n] if n > 4096 else ctypes.string_at(buffer, n)
    nfs.nfs_close(context, handle)
    return data


def walk(folder):
    for name, is_folder in names(folder):
        if name in (b".", b".."):
            continue
        path = folder.rstrip(b"/") + b"/" + name
        if is_folder:
            walk(path)
            continue
        data = read(path)
        print(hashlib.sha256(data).hexdigest(), path.decode())
        if len(sys.argv) > 2:
            target = os.path.join(sys.argv[2], path.decode().lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as f:
                f.write(data)


walk(b"/")
