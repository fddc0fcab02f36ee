"""Which device computes which tiles of a matrix, and when."""

from collections.abc import Iterator, Sequence

Pair = tuple[int, int]
"""Row and column of a tile, counted in tiles."""


def rounds(
    pairs: Sequence[Pair], devices: int, each: int, *, halves: bool
) -> Iterator[list[list[Pair]]]:
    """The tiles in rounds, in which every device is given a few.

    A round ends when its last device is done. So the tiles of a round cost much the
    same, and so do the shares of its devices.

    Args:
        pairs: the tiles.
        devices: how many there are.
        each: at most so many tiles a device and round.
        halves: whether tiles on the diagonal cost half of what others do.

    Returns:
        One list a round, of one list a device; some devices may be given fewer tiles
        than others, or none.
    """

    def cost(pair):
        return 1 if halves and pair[0] == pair[1] else 2

    dearest_first = sorted(pairs, key=cost, reverse=True)
    for begin in range(0, len(pairs), devices * each):
        shares: list[list[Pair]] = [[] for _ in range(devices)]
        for pair in dearest_first[begin : begin + devices * each]:
            free = [share for share in shares if len(share) < each]
            min(free, key=lambda share: sum(map(cost, share))).append(pair)
        yield shares
