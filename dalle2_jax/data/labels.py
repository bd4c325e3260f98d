"""Labels in place of captions, for classifiers: one token, the number of the class.

`config.data.caption` names where the label of a sample is: a member (webdataset's
KEY.cls) or a field of its JSON, of a data set of TFDS the feature.
"""

import numpy as np

from dalle2_jax.errors import BadInput

MOST_NAMED = 8  # classes that a message spells out


class Classes:
    """Reads labels as a Tokenizer reads captions.

    Args:
        names: of the classes, in order.
    """

    def __init__(self, names):
        self.names = tuple(names)
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def check(self, label):
        """Refuses what is no class. Raises BadInput, which begins with a verb."""
        if not label:
            raise BadInput("has no label.")
        if label not in self.numbers:
            raise BadInput(f"has the label {label!r}, which is none of {self.said()}.")

    def encode(self, labels, context=1):
        """list of n labels -> int32 [n, context]; -1 where one is no class."""
        found = [self.numbers.get(label, -1) for label in labels]
        return np.repeat(np.array(found, np.int32)[:, None], context, axis=1)

    def said(self):
        """The names, the first of many, for a message."""
        more = ", ..." if len(self.names) > MOST_NAMED else ""
        return ", ".join(self.names[:MOST_NAMED]) + more


def known_classes(part):
    """The Classes of a classifier's Component; numbers where its run named none."""
    names = part.config.get("data", {}).get("classes")
    return classes_of(names, part.cfg.unet.out_channels)


def classes_of(names, count):
    """Classes of their names, or of whole numbers below `count` where names is ()."""
    return Classes(names or map(str, range(count)))
