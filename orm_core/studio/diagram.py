"""The registered tables and their references as a picture: where each box and line goes.

Domains stand side by side, those that are referred to at the left. Inside a domain, tables stand
in one rank or several, those that are referred to at the top. Lines run in the gutters between
ranks, each in a lane of its own, and pass over the ranks in between through lanes above them, so
that no line crosses a box. ``draw(tables)`` answers plain geometry; the template makes the SVG.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from orm_core.studio.tables import Column, Table, Tables

WIDTH: Final = 224
HEAD: Final = 34
ROW: Final = 22
GAP: Final = 28
LANE: Final = 12
MARGIN: Final = 24
TITLE: Final = 36
#: space between a gutter's lanes and the boxes at its sides
SHOULDER: Final = 20
#: pixels of a rank from which a domain gets another one
TALL: Final = 900
#: space between a domain's border and its boxes
INSIDE: Final = 16
CORNER: Final = 7


@dataclass(slots=True)
class Box:
    """A table: its place, its size and the columns that are shown."""

    table: Table
    columns: list[Column]
    x: float = 0
    y: float = 0

    @property
    def height(self) -> float:
        """Its height, with a little room below the last column."""
        return HEAD + ROW * len(self.columns) + 8

    def line_of(self, column: Column) -> float:
        """The height at which a column's name stands, in the middle."""
        return self.y + HEAD + ROW * self.columns.index(column) + ROW / 2 + 3


@dataclass(slots=True)
class Group:
    """A domain: its name and the rectangle around its boxes; ``hue`` is one of six tints."""

    name: str
    hue: int
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0


@dataclass(frozen=True, slots=True)
class Line:
    """A reference, drawn from the column to the table that it refers to."""

    path: str
    table: str
    column: str
    target: str
    nullable: bool
    crosses: bool
    start: tuple[float, float]
    end: tuple[float, float]
    to_left: bool


@dataclass(slots=True)
class Drawing:
    """All of the picture."""

    groups: list[Group] = field(default_factory=list[Group])
    boxes: list[Box] = field(default_factory=list[Box])
    lines: list[Line] = field(default_factory=list[Line])
    width: float = 0
    height: float = 0


@dataclass(slots=True)
class _Edge:
    number: int
    column: Column
    child: Box
    parent: Box
    left: int = 0
    right: int = 0


def draw(tables: Tables) -> Drawing:
    """The picture of these tables."""
    drawing = Drawing()
    boxes = {table.name: Box(table, _columns(table)) for table in tables}
    drawing.boxes = list(boxes.values())
    ranks, hues = _ranks(tables, boxes)
    references = [
        (column, boxes[table.name], boxes[target.name])
        for table in tables
        for column in table.references
        if (target := tables.of(column.target)) is not None
    ]
    edges = [_Edge(number, *reference) for number, reference in enumerate(references)]
    place = {name: number for number, rank in enumerate(ranks) for name in rank}
    for edge in edges:
        edge.left, edge.right = place[edge.parent.table.name], place[edge.child.table.name]
    lanes = _gutters(edges, len(ranks))
    above = _above(edges)
    top = MARGIN + TITLE + (LANE * len(set(above.values())) + SHOULDER / 2 if above else 0)
    x: float = MARGIN + INSIDE
    lefts: list[float] = []
    for number, rank in enumerate(ranks):
        if number:
            x += 2 * SHOULDER + LANE * max(len(lanes[number]), 1)
        lefts.append(x)
        y = top
        for name in rank:
            boxes[name].x, boxes[name].y = x, y
            y += boxes[name].height + GAP
        x += WIDTH
    tall = max((box.y + box.height for box in drawing.boxes), default=top)
    last = len(lanes[len(ranks)])
    drawing.width = x + MARGIN + INSIDE + (SHOULDER + LANE * last if last else 0)
    drawing.height = tall + MARGIN + INSIDE
    drawing.groups = _groups(drawing, hues)
    drawing.lines = [_line(edge, lanes, above, lefts, top) for edge in edges]
    return drawing


def _columns(table: Table) -> list[Column]:
    """The columns of a box: the key and the references first, times that all have left out."""
    standard = {"created_at", "updated_at", "deleted_at"}
    first = [*table.keys, *(one for one in table.references if one not in table.keys)]
    rest = [one for one in table.columns if one not in first and one.name not in standard]
    return [*first, *rest]


def _ranks(tables: Tables, boxes: dict[str, Box]) -> tuple[list[list[str]], dict[str, int]]:
    """The names of the tables in each rank, from left to right, and each domain's tint.

    A domain is one rank, or several where it would be too tall.
    """
    domains = _in_order(tables)
    tallest = max((box.height for box in boxes.values()), default=0)
    most = max(TALL, tallest)
    ranks: list[list[str]] = []
    for domain in domains:
        own = sorted(tables.domains[domain], key=lambda table: _depth(tables, table, ()))
        total = sum(boxes[table.name].height + GAP for table in own)
        # of equal height, rather than a full one and a rest
        share = total / -(-total // most)
        rank: list[str] = []
        filled: float = 0
        for table in own:
            height = boxes[table.name].height + GAP
            if rank and filled + height / 2 > share:
                ranks.append(rank)
                rank, filled = [], 0
            rank.append(table.name)
            filled += height
        ranks.append(rank)
    return ranks, {name: number % 6 for number, name in enumerate(domains)}


def _in_order(tables: Tables) -> list[str]:
    """The domains, each after those that it refers to where that can be."""
    needs = {
        name: {
            target.domain
            for table in own
            for column in table.references
            if (target := tables.of(column.target)) is not None and target.domain != name
        }
        for name, own in tables.domains.items()
    }
    order: list[str] = []
    while len(order) < len(needs):
        left = [name for name in needs if name not in order]
        free = [name for name in left if needs[name] <= set(order)]
        order += free or left[:1]
    return order


def _depth(tables: Tables, table: Table, seen: tuple[str, ...]) -> int:
    """How many references lead away from a table inside its domain; a circle ends the count."""
    if table.name in seen:
        return 0
    below = [
        _depth(tables, target, (*seen, table.name)) + 1
        for column in table.references
        if (target := tables.of(column.target)) is not None
        and target.domain == table.domain
        and target is not table
        and target.name not in seen
    ]
    return max(below, default=0)


def _gutters(edges: list[_Edge], count: int) -> dict[int, list[int]]:
    """The lanes of the gutter at the left of each rank, by the edges that run there.

    A line leaves its column to the left, or to the right when its parent is not further left, and
    enters its parent from the right.
    """
    lanes: dict[int, list[int]] = {number: [] for number in range(count + 1)}
    for edge in edges:
        for gutter in {_leaves(edge), edge.left + 1}:
            lanes[gutter].append(edge.number)
    return lanes


def _leaves(edge: _Edge) -> int:
    return edge.right if edge.right > edge.left else edge.right + 1


def _above(edges: list[_Edge]) -> dict[int, int]:
    """The lane above the boxes for each edge that passes over a rank."""
    passing = [edge.number for edge in edges if _leaves(edge) != edge.left + 1]
    return {number: lane for lane, number in enumerate(passing)}


def _line(
    edge: _Edge,
    lanes: dict[int, list[int]],
    above: dict[int, int],
    lefts: list[float],
    top: float,
) -> Line:
    to_left = edge.right > edge.left
    y = edge.child.line_of(edge.column)
    start = (edge.child.x if to_left else edge.child.x + WIDTH, y)
    end = (edge.parent.x + WIDTH, edge.parent.y + HEAD / 2)
    first = _lane_at(lanes, lefts, _leaves(edge), edge.number)
    points = [start, (first, y)]
    if edge.number in above:
        second = _lane_at(lanes, lefts, edge.left + 1, edge.number)
        over = top - SHOULDER / 2 - LANE * above[edge.number]
        points += [(first, over), (second, over), (second, end[1])]
    else:
        points.append((first, end[1]))
    points.append(end)
    return Line(
        _rounded(points),
        edge.child.table.name,
        edge.column.name,
        edge.parent.table.name,
        edge.column.nullable,
        edge.child.table.domain != edge.parent.table.domain,
        start,
        end,
        to_left,
    )


def _lane_at(lanes: dict[int, list[int]], lefts: list[float], gutter: int, number: int) -> float:
    lane = lanes[gutter].index(number)
    if gutter == len(lefts):
        return lefts[-1] + WIDTH + SHOULDER + LANE * (lane + 0.5)
    return lefts[gutter] - SHOULDER - LANE * (lane + 0.5)


def _rounded(points: list[tuple[float, float]]) -> str:
    """An SVG path through the points, with round corners."""
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(CORNER, _far(before, corner) / 2, _far(corner, after) / 2)
        into, out = _towards(corner, before, radius), _towards(corner, after, radius)
        path.append(f"L{into[0]:.1f} {into[1]:.1f}")
        path.append(f"Q{corner[0]:.1f} {corner[1]:.1f} {out[0]:.1f} {out[1]:.1f}")
    path.append(f"L{points[-1][0]:.1f} {points[-1][1]:.1f}")
    return " ".join(path)


def _far(one: tuple[float, float], other: tuple[float, float]) -> float:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def _towards(
    start: tuple[float, float], goal: tuple[float, float], way: float
) -> tuple[float, float]:
    far = _far(start, goal) or 1.0
    return (
        start[0] + (goal[0] - start[0]) / far * way,
        start[1] + (goal[1] - start[1]) / far * way,
    )


def _groups(drawing: Drawing, hues: dict[str, int]) -> list[Group]:
    groups: list[Group] = []
    for name, hue in hues.items():
        own = [box for box in drawing.boxes if box.table.domain == name]
        if not own:
            continue
        left = min(box.x for box in own) - INSIDE
        right = max(box.x for box in own) + WIDTH + INSIDE
        groups.append(Group(name, hue, left, MARGIN, right - left, drawing.height - 2 * MARGIN + 4))
    return groups
