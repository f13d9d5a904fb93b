"""A Mac as its commands describe it, and a machine that nothing is wrong with."""

import platform
from types import SimpleNamespace

import pytest

from mlx_ssd.doctor import hardware, power

PMSET = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 hibernatefile        /var/vm/sleepimage
 powernap             1
 networkoversleep     0
 disksleep            10
 sleep                1 (sleep prevented by powerd, coreaudiod)
 hibernatemode        3
 ttyskeepawake        1
 displaysleep         10
 tcpkeepalive         1
 lowpowermode         0
 womp                 1
"""
# On Apple silicon that is all of it.
THERM = """Note: No thermal warning level has been recorded
Note: No performance warning level has been recorded
Note: No CPU power status has been recorded
"""


@pytest.fixture
def mac(monkeypatch):
    """What each command answers; a test changes it."""
    answers = {
        "sysctl -n machdep.cpu.brand_string": "Apple M3 Pro",
        "sysctl -n sysctl.proc_translated": "0",
        "sysctl -n iogpu.wired_limit_mb": "0",
        "sw_vers -productVersion": "15.5",
        "pmset -g": PMSET,
        "pmset -g therm": THERM,
    }
    for module in (hardware, power):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform="darwin", executable="python"))
        monkeypatch.setattr(module, "ask", lambda *command: answers.get(" ".join(command), ""))
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(power, "on_battery", lambda: None)
    monkeypatch.setattr(power, "CAFFEINATE", SimpleNamespace(exists=lambda: True))
    return answers
