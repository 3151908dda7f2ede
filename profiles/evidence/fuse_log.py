"""A read-only mount of a directory that logs each request: time, operation, path, offset, size.

    fuse_log.py DIRECTORY MOUNT LOG
"""

import os
import sys
import threading
import time

import mfusepy


class Passthrough(mfusepy.Operations):
    use_ns = True

    def __init__(self, root, log):
        self.root, self.log, self.lock = root, open(log, "w", buffering=1), threading.Lock()

    def note(self, *words):
        with self.lock:
            print(f"{time.time():.6f}", *words, file=self.log)

    def getattr(self, path, fh=None):
        try:
            found = os.stat(self.root + path)
        except OSError as error:
            self.note("missing", path)
            raise mfusepy.FuseOSError(error.errno)
        names = ["st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino"]
        return {name: getattr(found, name) for name in names} | {"st_mtime": found.st_mtime_ns}

    def readdir(self, path, fh):
        self.note("readdir", path)
        return [".", "..", *os.listdir(self.root + path)]

    def open(self, path, flags):
        self.note("open", path, oct(flags))
        return os.open(self.root + path, os.O_RDONLY)

    def read(self, path, size, offset, fh):
        self.note("read", path, offset, size)
        return os.pread(fh, size, offset)

    def release(self, path, fh):
        os.close(fh)
        return 0


root, mount, log = sys.argv[1:]
mfusepy.FUSE(Passthrough(root, log), mount, foreground=True, ro=True)
