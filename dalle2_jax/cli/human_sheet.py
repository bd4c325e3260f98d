"""A comparison sheet for people: one HTML file with its pictures inside."""

import base64
import html
import io
import json

SIDE = 256  # pixels that a side of a pair is shown at
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Which is better?</title>
<style>
body {{ font: 16px sans-serif; max-width: 640px; margin: 2em auto; color: #222 }}
section {{ border-top: 1px solid #ccc; padding: 1em 0 }}
h2 {{ font-size: 1em; margin: 0 0 .5em }}
.pair {{ display: flex; gap: 24px }}
.pair img {{ width: {side}px; image-rendering: pixelated; display: block }}
.answers label {{ margin-right: 1.5em }}
button {{ font-size: 1em; padding: .5em 1em }}
</style>
<h1>Which is better?</h1>
<p>{count} pairs. Answer those that you can, then save the answers.</p>
{sections}
<p><button type="button" id="save">Save answers</button> <span id="told"></span></p>
<script>
const pairs = {names};
document.getElementById("save").onclick = () => {{
  const given = pairs.map(name => {{
    const chosen = document.querySelector(`input[name="${{name}}"]:checked`);
    return [name, chosen ? chosen.value : ""];
  }});
  const lines = [["pair", "answer"], ...given].map(line => line.join(","));
  const link = document.createElement("a");
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent(lines.join("\\n"));
  link.download = "answers.csv";
  link.click();
  const count = given.filter(line => line[1]).length;
  document.getElementById("told").textContent = `${{count}} of ${{pairs.length}} saved`;
}};
</script>
</html>
"""
SECTION = """<section>
<h2>{number}. {question}</h2>{caption}
<div class="pair">{left}{right}</div>
<p class="answers">{answers}</p>
</section>"""


def sheet(pairs, sides):
    """The page.

    Args:
        pairs: human_pairs.Pair, question by question, one per caption.
        sides: of both systems, [n][pictures] uint8 [y, x, 3]; where diversity is asked
            all are shown, else the first.

    Returns:
        HTML that needs nothing beside itself.
    """
    sections = [
        _section(i, pair, [side[pair.index] for side in sides])
        for i, pair in enumerate(pairs, 1)
    ]
    names = json.dumps([pair.name for pair in pairs])
    parts = {"count": len(pairs), "sections": "\n".join(sections), "names": names}
    return PAGE.format(side=SIDE, **parts)


def _section(number, pair, pictures):
    """One question about two systems' pictures of one caption."""
    from dalle2_jax.evaluate.human_pairs import QUESTIONS, VOTES

    shown = [_grid(x) if pair.question == "diversity" else x[0] for x in pictures]
    left, right = shown[::-1] if pair.swapped else shown
    told = (
        ""
        if pair.question == "photorealism"
        else f"<p>“{html.escape(pair.caption)}”</p>"
    )
    answers = "".join(
        f'<label><input type="radio" name="{pair.name}" value="{a}"> {a}</label>'
        for a in VOTES
    )
    return SECTION.format(
        number=number,
        question=QUESTIONS[pair.question],
        caption=told,
        left=_image(left, "left"),
        right=_image(right, "right"),
        answers=answers,
    )


def _grid(pictures):
    """Pictures [k][y, x, 3] in a square, k a square number: uint8 [side, side, 3]."""
    import numpy as np

    columns = int(len(pictures) ** 0.5)
    rows = [
        np.concatenate(pictures[i : i + columns], axis=1)
        for i in range(0, columns**2, columns)
    ]
    return np.concatenate(rows)


def _image(picture, place):
    """An <img> with its PNG inside."""
    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(picture).save(held, "png", optimize=True)
    data = base64.b64encode(held.getvalue()).decode()
    return f'<img alt="{place}" src="data:image/png;base64,{data}">'
