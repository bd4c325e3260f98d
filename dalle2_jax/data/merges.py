"""Learns byte-pair merges: again and again, the most frequent pair becomes a symbol."""

import heapq
from collections import defaultdict


def learn_merges(words, limit):
    """At most `limit` merges [(left, right)], in the order in which they apply.

    words: {(symbol, ...): count}. Of equally frequent pairs the alphabetically first is
    taken, so the result depends on the counts alone. No symbol is made in two ways.
    """
    spelt = [list(word) for word in words]
    counts = list(words.values())
    totals, places = _count_pairs(spelt, counts)
    queue = [(-total, pair) for pair, total in totals.items()]
    heapq.heapify(queue)
    merges, made = [], set()
    while queue and len(merges) < limit:
        negative, pair = heapq.heappop(queue)
        if -negative != totals.get(pair, 0):
            continue  # an outdated entry: a newer one is in the queue
        if "".join(pair) in made:
            continue
        merges.append(pair)
        made.add("".join(pair))
        for other in _apply(pair, spelt, counts, totals, places):
            if totals[other] > 0:
                heapq.heappush(queue, (-totals[other], other))
    return merges


def _apply(pair, spelt, counts, totals, places):
    """Merges a pair in all words; the other pairs whose totals have changed."""
    changed = set()
    for word in places.pop(pair):
        change = _merge(spelt[word], pair)
        changed.update(change)
        for other, difference in change.items():
            totals[other] += difference * counts[word]
            if difference > 0:
                places[other].add(word)
    totals.pop(pair)
    return changed - {pair}


def _count_pairs(spelt, counts):
    """Weighted count of each pair of neighbours, and the words that it is in."""
    totals, places = defaultdict(int), defaultdict(set)
    for word, (symbols, count) in enumerate(zip(spelt, counts)):
        for pair in zip(symbols, symbols[1:]):
            totals[pair] += count
            places[pair].add(word)
    return totals, places


def _merge(symbols, pair):
    """Joins the pair in place; {neighbour pair: how much more often it is there}."""
    change = defaultdict(int)
    for old in zip(symbols, symbols[1:]):
        change[old] -= 1
    here = 0
    while here < len(symbols) - 1:
        if (symbols[here], symbols[here + 1]) == pair:
            symbols[here : here + 2] = ["".join(pair)]
        here += 1
    for new in zip(symbols, symbols[1:]):
        change[new] += 1
    return {p: difference for p, difference in change.items() if difference}
