"""What all tests share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.real_run import draw_inputs, quick_network


def pytest_configure() -> None:
    # A background job of a shell without job control begins with Ctrl-C ignored, and so would its children: the tests
    # that press it would wait for nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Tiny networks gain nothing by threads, and several processes of tests, each with all cores, would thrash.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """See `quick_network`."""
    with pytest.MonkeyPatch.context() as patch:
        quick_network(patch)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn faces and paintings, for all tests of a file."""
    folder = tmp_path_factory.mktemp("inputs")
    draw_inputs(folder)
    return folder
