"""The generated worlds: what a picture may show, drawn specs, their hard partners."""

from dataclasses import dataclass
from typing import NamedTuple

from dalle2_jax.errors import BadInput

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (216, 38, 40),
    "orange": (246, 134, 28),
    "yellow": (246, 222, 52),
    "green": (44, 160, 66),
    "cyan": (64, 206, 214),
    "blue": (44, 78, 206),
    "purple": (128, 52, 170),
    "pink": (246, 128, 184),
}
BACKGROUNDS = {"white": 243, "grey": 128, "black": 14}
RELATIONS = {  # direction from the second object to the first, in picture sides
    "left of": (-0.245, 0.0),
    "right of": (0.245, 0.0),
    "above": (0.0, -0.245),
    "below": (0.0, 0.245),
}
OPPOSITE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
HELD_OUT = frozenset(  # (shape, colour) pairs that no training picture shows
    {
        ("triangle", "red"),
        ("square", "blue"),
        ("cross", "yellow"),
        ("circle", "purple"),
        ("ring", "green"),
        ("triangle", "cyan"),
    }
)
NAMED_PLACES = {
    "centre": (0.5, 0.5),
    "left": (0.33, 0.5),
    "right": (0.67, 0.5),
    "top": (0.5, 0.33),
    "bottom": (0.5, 0.67),
}
CORNERS = {
    "top left": (0.26, 0.26),
    "top right": (0.74, 0.26),
    "bottom left": (0.26, 0.74),
    "bottom right": (0.74, 0.74),
}


class Thing(NamedTuple):
    """One object. An empty attribute is not named and not fixed by this world."""

    shape: str
    colour: str
    size: str = ""
    place: str = ""
    texture: str = ""


class Spec(NamedTuple):
    """What a picture shows. relation: of the first thing to the second, or empty."""

    world: str
    things: tuple
    background: str
    relation: str = ""

    def as_dict(self):
        """The JSON-able form, kept beside each picture."""
        things = [thing._asdict() for thing in self.things]
        return {**self._asdict(), "things": things}


def spec_of(fields):
    """The inverse of `Spec.as_dict`; other fields of the mapping are ignored."""
    things = tuple(Thing(**thing) for thing in fields["things"])
    return Spec(fields["world"], things, fields["background"], fields["relation"])


@dataclass(frozen=True)
class World:
    """A table of what its pictures may show.

    counts: numbers of objects, equally likely. radii: size name -> half the width of
    an object in picture sides. places: name -> centre. related: two objects stand in a
    relation and have neither size nor place of their own.
    """

    name: str
    counts: tuple
    radii: dict
    places: dict
    related: bool = False
    textures: tuple = ("",)


WORLDS = {
    "simple": World("simple", (1,), {"small": 0.203, "large": 0.303}, NAMED_PLACES),
    "pairs": World(
        "pairs", (1, 2), {"small": 0.203, "large": 0.303}, NAMED_PLACES, related=True
    ),
    "full": World(
        "full",
        (2, 3, 4),
        {"small": 0.13, "large": 0.205},
        CORNERS,
        textures=("plain", "striped", "dotted"),
    ),
}


def world_of(name):
    """The World of that name (a World is passed through). Raises BadInput."""
    if isinstance(name, World):
        return name
    if name not in WORLDS:
        raise BadInput(f"There is no world {name!r}; take one of {', '.join(WORLDS)}.")
    return WORLDS[name]


def has_held_out(spec):
    """Whether a (shape, colour) pair that training never shows is in the picture."""
    return any((t.shape, t.colour) in HELD_OUT for t in spec.things)


def canonical(spec):
    """Equal pictures get equal specs: relations read left to right, top to bottom."""
    if spec.relation in ("right of", "below"):
        relation = OPPOSITE[spec.relation]
        return spec._replace(things=spec.things[::-1], relation=relation)
    if len(spec.things) > 1 and not spec.relation:
        return spec._replace(things=tuple(sorted(spec.things)))
    return spec


def _pick(names, rng):
    names = names if isinstance(names, tuple) else tuple(names)
    return names[int(rng.random() * len(names))]


def _draw_thing(world, place, related, rng):
    shape, colour = _pick(SHAPES, rng), _pick(COLOURS, rng)
    size = "" if related else _pick(world.radii, rng)
    return Thing(shape, colour, size, place, _pick(world.textures, rng))


def _draw_any(world, count, rng):
    related = world.related and count == 2
    places = [""] * count if related else list(world.places)
    if not related:
        rng.shuffle(places)
    things = tuple(_draw_thing(world, places[i], related, rng) for i in range(count))
    relation = _pick(RELATIONS, rng) if related else ""
    return Spec(world.name, things, _pick(BACKGROUNDS, rng), relation)


def draw_spec(world, rng, held_out=False, count=None):
    """One random spec of a World (or its name).

    held_out: False, no held-out (shape, colour) pair; True, at least one; None, either.
    count: number of objects, None for any that the world has.
    """
    world = world_of(world)
    if count is None:
        count = _pick(world.counts, rng)
    while True:
        spec = _draw_any(world, count, rng)
        if held_out is None or has_held_out(spec) == held_out:
            return spec


def _with_thing(spec, number, fields):
    things = list(spec.things)
    things[number] = things[number]._replace(**fields)
    return spec._replace(things=tuple(things))


def _values(world, spec, attribute):
    """The values that an attribute of one thing could take in this picture."""
    if attribute == "place":
        return set(world.places) - {t.place for t in spec.things}
    tables = {"shape": SHAPES, "colour": COLOURS, "size": world.radii}
    return tables.get(attribute, world.textures)


def _thing_changes(world, spec, number):
    """(attribute, [changed specs]) for each attribute that this thing has."""
    thing = spec.things[number]
    for attribute in ("shape", "colour", "size", "place", "texture"):
        now = getattr(thing, attribute)
        others = sorted(set(_values(world, spec, attribute)) - {now}) if now else []
        yield attribute, [_with_thing(spec, number, {attribute: v}) for v in others]


def _traded_colours(spec):
    """The two objects of a pair with each other's colour: the test of binding."""
    one, two = spec.things
    if one.colour == two.colour or one.shape == two.shape:
        return []
    things = (one._replace(colour=two.colour), two._replace(colour=one.colour))
    return [spec._replace(things=things)]


def changes(spec):
    """All hard partners of a spec, grouped: [(what changes, [specs])]."""
    world = world_of(spec.world)
    groups = []
    for number in range(len(spec.things)):
        groups += _thing_changes(world, spec, number)
    grounds = [b for b in BACKGROUNDS if b != spec.background]
    groups.append(("background", [spec._replace(background=b) for b in grounds]))
    if spec.relation:
        relations = [r for r in RELATIONS if r != spec.relation]
        groups.append(("relation", [spec._replace(relation=r) for r in relations]))
        groups.append(("trade", _traded_colours(spec)))
    return groups


def change_one(spec, rng):
    """A hard partner: a spec that differs from this one in exactly one attribute.

    In a related pair the change may also be a trade of the two colours. A spec without
    held-out pairs gets a partner without them.
    """
    seen = not has_held_out(spec)
    groups = [
        [s for s in specs if not (seen and has_held_out(s)) and not _same(s, spec)]
        for _, specs in changes(spec)
    ]
    return _pick(tuple(_pick(tuple(g for g in groups if g), rng)), rng)


def _same(one, two):
    return canonical(one) == canonical(two)
