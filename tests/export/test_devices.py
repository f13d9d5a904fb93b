"""Memory of devices: against sums by hand of a known model."""

import pytest

from mlx_ssd.budget import KNOWN_CONFIGS
from mlx_ssd.export import devices

QWEN3_4B = KNOWN_CONFIGS["mlx-community/Qwen3-4B-Instruct-2507-4bit"]
CACHE = 2 * 36 * 8 * 128 * 2  # keys and values x layers x heads x size x bytes: a token
CHUNK = 512 * (3 * 9728 + 151936) * 2


def test_needs_of_qwen3_4b_by_hand():
    found = devices.needs(QWEN3_4B, 2.26e9, 262144)
    assert [need.context for need in found] == [2048, 4096, 8192]
    assert [need.cache for need in found] == [2048 * CACHE, 4096 * CACHE, 8192 * CACHE]
    assert [need.total for need in found] == [2.26e9 + need.cache + CHUNK + devices.RUNTIME for need in found]
    assert [need.phone for need in found] == [6, 6, 8] and {need.mac for need in found} == {8}


def test_only_contexts_that_the_export_takes():
    assert [need.context for need in devices.needs(QWEN3_4B, 1e9, 4096)] == [2048, 4096]
    assert [need.context for need in devices.needs(QWEN3_4B, 1e9, 1024)] == [1024]
    assert [need.context for need in devices.needs(QWEN3_4B, 1e9, 4096, fixed=True)] == [4096]


@pytest.mark.parametrize("weights, phone, mac", [(1e9, 4, 8), (5e9, 12, 16), (9e9, None, 16), (2e11, None, None)])
def test_what_fits_where(weights, phone, mac):
    (need,) = devices.needs(QWEN3_4B, weights, 1024)
    assert (need.phone, need.mac) == (phone, mac)


def test_table_says_none_where_nothing_fits():
    rows = devices.table(devices.needs(QWEN3_4B, 2e11, 1024))
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|")
    assert rows[2].endswith("| none | none |")
    assert "| 6 GB (iPhone 12 Pro, " in devices.table(devices.needs(QWEN3_4B, 2.26e9, 4096))[2]
