"""What every Python process that finds this on its path imports when it starts: it makes the process wait for a test.

See ``Hold`` in the ``__init__.py`` beside this; only the standard library, since it comes before everything else.
"""

import contextlib
import os
import signal
import time


def _install(file, times, gate):
    replace, fsync = os.replace, os.fsync
    written = 0

    def replaced(source, target, **options):
        replace(source, target, **options)
        _written(os.path.abspath(target))

    def synced(descriptor):
        fsync(descriptor)
        _written(os.readlink(f"/proc/self/fd/{descriptor}"))

    def _written(path):
        nonlocal written
        written += path.endswith(f"/{file}")
        if written == times:
            written += 1
            _wait(os.path.join(gate, str(os.getpid())))

    def _wait(held):
        asked = []
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def pass_on(number, frame):
            asked.append(number)
            handlers[number](number, frame)

        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, pass_on)
        with contextlib.suppress(FileNotFoundError):  # nobody is held any more
            open(held, "x").close()
        while os.path.exists(held) and not asked:
            time.sleep(0.01)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    os.replace, os.fsync = replaced, synced


if "PSVIT_TEST_HOLD" in os.environ:
    _file, _times, _gate = os.environ["PSVIT_TEST_HOLD"].split(":", 2)
    _install(_file, int(_times), _gate)
