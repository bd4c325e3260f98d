"""The generated worlds in words: several phrasings of one spec."""

from dalle2_jax.data.shapes import OPPOSITE

SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
    "cross": ("cross", "cross", "plus"),
    "ring": ("ring", "ring", "hoop"),
}
SIZE_WORDS = {
    "small": ("small", "small", "little"),
    "large": ("large", "large", "big"),
}
PLACE_WORDS = {
    "centre": ("in the centre", "in the middle"),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "top left": ("at the top left",),
    "top right": ("at the top right",),
    "bottom left": ("at the bottom left",),
    "bottom right": ("at the bottom right",),
}
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
GROUND_WORDS = ("on {}", "on a {} background")


def _pick(words, rng):
    return words[int(rng.random() * len(words))]


def _noun(thing, rng):
    """ "a large striped red circle" with the words that this thing has."""
    size = _pick(SIZE_WORDS[thing.size], rng) if thing.size else ""
    texture = "" if thing.texture == "plain" else thing.texture
    shape = _pick(SHAPE_WORDS[thing.shape], rng)
    words = " ".join(w for w in (size, texture, thing.colour, shape) if w)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _one(spec, rng):
    thing = spec.things[0]
    noun, place = _noun(thing, rng), _pick(PLACE_WORDS[thing.place], rng)
    ground = _pick(GROUND_WORDS, rng).format(spec.background)
    orders = (
        f"{noun} {place} {ground}",
        f"{ground}, {noun} {place}",
        f"{place}, {noun} {ground}",
    )
    return _pick(orders, rng)


def _two(spec, rng):
    one, two = (_noun(thing, rng) for thing in spec.things)
    relation = spec.relation
    if rng.random() < 0.5:
        one, two, relation = two, one, OPPOSITE[relation]
    scene = f"{one} {_pick(RELATION_WORDS[relation], rng)} {two}"
    ground = _pick(GROUND_WORDS, rng).format(spec.background)
    return f"{ground}, {scene}" if rng.random() < 0.33 else f"{scene} {ground}"


def _many(spec, rng):
    parts = [f"{_noun(t, rng)} {_pick(PLACE_WORDS[t.place], rng)}" for t in spec.things]
    rng.shuffle(parts)
    scene = ", ".join(parts[:-1]) + f" and {parts[-1]}"
    ground = _pick(GROUND_WORDS, rng).format(spec.background)
    return f"{ground}, {scene}" if rng.random() < 0.33 else f"{scene}, {ground}"


def caption(spec, rng):
    """One of the phrasings of a spec; lower-case, and no two specs share one."""
    if spec.relation:
        return _two(spec, rng)
    return _one(spec, rng) if len(spec.things) == 1 else _many(spec, rng)
