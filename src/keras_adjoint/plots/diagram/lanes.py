"""Lanes for the edges of a graph whose nodes stand one below the other, as in the history of a repository."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edge:
    """A tensor on its way: from one row to a later one, beside the rows between them in a lane."""

    start: int
    end: int
    lane: int


def lanes_of(targets):
    """A lane for every row and every edge, as far to the left as there is room.

    A row stands in the lane that its first edge arrives in, and its nearest reader follows in the same lane, so that the
    longest chain stays in lane 0 and what skips rows runs beside it.

    Args:
        targets: For every row the later rows that read it.

    Returns:
        (the lane of each row, a list of every `Edge`).
    """
    open_edges = {}  # lane: (start, end)
    lanes, edges = [], []
    for row, ends in enumerate(targets):
        arriving = sorted(lane for lane, (_, end) in open_edges.items() if end == row)
        for lane in arriving:
            start, end = open_edges.pop(lane)
            edges.append(Edge(start, end, lane))
        own = arriving[0] if arriving else first_free(open_edges)
        lanes.append(own)
        for number, end in enumerate(sorted(set(ends))):
            open_edges[own if number == 0 else first_free({*open_edges, own})] = row, end
    return lanes, edges


def first_free(taken):
    lane = 0
    while lane in taken:
        lane += 1
    return lane
