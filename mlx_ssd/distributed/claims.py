"""Who draws what: requests by number, each free, claimed, or delivered. No sockets, no clock, no array library.

A claim that is handed back is free again, and goes first. Where nothing is free, an owner with nothing to do takes over
what others hold; the first delivery counts, and by rule 3 all would be equal.
"""

from __future__ import annotations

import heapq


class Claims:
    """Of the requests 0 to total - 1. An owner is any word."""

    def __init__(self, total: int):
        self._free = list(range(total))  # a heap: the order of the requests, handed back or not
        self._holders: dict[int, set[str]] = {}
        self._stale: dict[str, list[int]] = {}  # what an owner holds and another has delivered
        self._taken = 0
        self._since: dict[int, int] = {}  # when it was first claimed, in claims
        self.left = total  # not delivered

    def take(self, owner: str, count: int) -> list[int]:
        """Claim the next `count`, fewer where fewer are free."""
        found = []
        while self._free and len(found) < count:
            number = heapq.heappop(self._free)
            self._hold(number, owner)
            found.append(number)
        return found

    def take_over(self, owner: str, count: int) -> list[int]:
        """Claim at most `count`, and half, of what others hold and have not delivered: first what the fewest hold, then
        what was claimed last, which has the most left to be drawn."""
        others = [number for number, holders in self._holders.items() if owner not in holders]
        others.sort(key=lambda number: (len(self._holders[number]), -self._since[number]))
        found = others[: min(count, -(-len(others) // 2))]
        for number in found:
            self._hold(number, owner)
        return found

    def deliver(self, owner: str, number: int) -> bool:
        """Whether it is the first delivery of `number`."""
        if number not in self._holders:  # delivered before, or handed back and free again
            if number not in self._free:
                return False
            self._free.remove(number)
            heapq.heapify(self._free)
        for other in self._holders.pop(number, set()) - {owner}:
            self._stale.setdefault(other, []).append(number)
        self._since.pop(number, None)
        self.left -= 1
        return True

    def stale(self, owner: str) -> list[int]:
        """What the owner need not draw any more. Told once."""
        return self._stale.pop(owner, [])

    def give_back(self, owner: str) -> int:
        """Free what the owner alone holds: how many."""
        self._stale.pop(owner, None)
        freed = 0
        for number, holders in list(self._holders.items()):
            holders.discard(owner)
            if not holders:
                del self._holders[number], self._since[number]
                heapq.heappush(self._free, number)
                freed += 1
        return freed

    def _hold(self, number: int, owner: str) -> None:
        self._holders.setdefault(number, set()).add(owner)
        self._taken += 1
        self._since.setdefault(number, self._taken)
