"""What only a Mac answers, on answers that a Mac would give."""

import mmap
import struct
import sys

import pytest

from mlx_ssd.bench import battery, footprint

# The layout of `ioreg -rn AppleSmartBattery`; the current is -1,234 mA in 64 bits.
ON_BATTERY = """\
+-o AppleSmartBattery  <class AppleSmartBattery, id 0x100000abc, registered, matched, active, busy 0 (0 ms), retain 7>
    {
      "ExternalConnected" = No
      "TimeRemaining" = 312
      "InstantAmperage" = 18446744073709550382
      "UpdateTime" = 1764432000
      "Voltage" = 12000
      "AdapterDetails" = {"FamilyCode"=0}
      "LegacyBatteryInfo" = {"Amperage"=18446744073709550382,"Voltage"=12000}
    }
"""


def test_what_the_battery_gives():
    assert battery.parse(ON_BATTERY) == battery.Reading(pytest.approx(14.808), 1764432000)


@pytest.mark.parametrize(
    "before, after",
    [
        ('"ExternalConnected" = No', '"ExternalConnected" = Yes'),
        ('"InstantAmperage" = 18446744073709550382', '"InstantAmperage" = 900'),  # it is being charged
        ('"InstantAmperage" = 18446744073709550382', '"InstantAmperage" = 0'),
        ('"Voltage" = 12000\n      "A', '"A'),
        ('"UpdateTime" = 1764432000', '"UpdateTime" = never'),
    ],
)
def test_what_says_nothing_of_energy_is_absent(before, after):
    text = ON_BATTERY.replace(before, after, 1)
    assert text != ON_BATTERY and battery.parse(text) is None
    assert battery.parse("") is None


def test_only_counters_renewed_during_the_work_count():
    old, new, newer = battery.Reading(9, 100), battery.Reading(12, 130), battery.Reading(16, 160)
    assert battery.watts([old, new, new, None, newer], since=120) == 14
    assert battery.watts([old, None], since=120) is None


@pytest.mark.skipif(sys.platform == "darwin", reason="there it asks ioreg")
def test_elsewhere_there_is_no_reading():
    assert battery.read() is None


def test_a_mac_s_footprint_is_read_where_its_struct_has_it():
    class System:
        def proc_pid_rusage(self, pid, flavor, buffer):
            assert flavor == 4 and len(buffer) == 16 + 35 * 8
            struct.pack_into("<Q", buffer, 72, 111)
            struct.pack_into("<Q", buffer, 240, 222)
            return 0

    assert footprint._of_macos(System()) == (111, 222)
    refusing = type("Refusing", (), {"proc_pid_rusage": lambda *_: -1})()
    assert footprint._of_macos(refusing) is None


def test_memory_that_is_taken_is_in_the_footprint():
    now, peak = footprint.now_and_peak()
    with mmap.mmap(-1, 64 * 2**20) as taken:  # of its own: an allocator may have as much at hand
        taken.write(b"1" * len(taken))
        more, higher = footprint.now_and_peak()
    assert more - now > 48 * 2**20 and higher >= more and peak >= now


@pytest.mark.mac
def test_a_mac_says_its_footprint():
    now, peak = footprint.now_and_peak()
    assert 10e6 < now <= peak < 64e9
