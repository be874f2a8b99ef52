"""Numbers for readers."""

import pytest

from osdtw_lib.backend.progress import size


@pytest.mark.parametrize(
    "number, words",
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (64_800, "64.8 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3.6e6, "3.6 MB"),
        (4e9, "4.0 GB"),
        (2.5e12, "2.5 TB"),
        (7e15, "7000.0 TB"),
    ],
)
def test_bytes_in_the_unit_that_suits(number, words):
    assert size(number) == words
