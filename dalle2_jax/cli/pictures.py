"""PNG files with their provenance inside, and sheets of pictures with captions."""

import json
import textwrap

from dalle2_jax import __version__

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
LINES = 4  # of a caption, at most
SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def save_picture(path, picture, facts):
    """Writes uint8 [y, x, 3] as PNG; `facts` go in as JSON, the source type as XMP."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", f"dalle2_jax {__version__}")
    info.add_text("dalle2", json.dumps(facts))
    info.add_itxt("XML:com.adobe.xmp", XMP.format(source=SOURCE))
    draft = path.with_name(f".{path.name}.new")
    Image.fromarray(picture).save(draft, "png", pnginfo=info)
    draft.replace(path)


def contact_sheet(pictures, captions, columns, rows=None, side=128):
    """Pictures in a grid with their captions under them.

    Args:
        pictures: uint8 [n, y, x, 3], row after row.
        captions: n strings; an empty one leaves the line blank.
        columns: pictures a row.
        rows: names of the rows, printed at the left, or None.
        side: pixels a picture is shown at; whole multiples keep pixels square.

    Returns:
        uint8 [y, x, 3].
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(11)
    margin, gap = (110 if rows else 8), 8
    lines = [textwrap.wrap(caption, side // 6)[:LINES] for caption in captions]
    starts = range(0, len(pictures), columns)
    text = [13 * max(map(len, lines[i : i + columns])) + gap for i in starts]
    tops = np.cumsum([gap, *(side + height for height in text)])
    sheet = Image.new("RGB", (margin + columns * (side + gap), int(tops[-1])), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (picture, words) in enumerate(zip(pictures, lines)):
        x, y = margin + i % columns * (side + gap), int(tops[i // columns])
        shown = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(shown, (x, y))
        pen.multiline_text(
            (x, y + side + 2), "\n".join(words), "black", font, spacing=1
        )
    for top, name in zip(tops, rows or ()):
        label = "\n".join(textwrap.wrap(name, 16))
        pen.multiline_text((6, int(top) + side // 2 - 16), label, "black", font)
    return np.asarray(sheet)
