"""PNG files that say what made them: XMP's digital source type and our own JSON."""

import json

from dalle2_jax import __version__

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="{source}"/></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
KEEPING = ("inpaint",)  # verbs whose pictures keep pixels of one that was given


def save_picture(path, picture, facts):
    """Writes uint8 [y, x, 3] as PNG; `facts` go in as JSON, the source type as XMP.

    The type is IPTC's trainedAlgorithmicMedia, or its compositeWith... of a `verb`
    that leaves a part of a given picture as it was.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", f"dalle2_jax {__version__}")
    info.add_text("dalle2", json.dumps(facts))
    kept = facts.get("verb") in KEEPING
    kind = "compositeWithTrainedAlgorithmicMedia" if kept else "trainedAlgorithmicMedia"
    info.add_itxt("XML:com.adobe.xmp", XMP.format(source=SOURCES + kind))
    draft = path.with_name(f".{path.name}.new")
    Image.fromarray(picture).save(draft, "png", pnginfo=info)
    draft.replace(path)
