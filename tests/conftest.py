"""What all tests share."""

import signal


def pytest_configure() -> None:
    # A background job of a shell without job control begins with Ctrl-C ignored, and so would its children: the tests
    # that press it would wait for nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
