"""Pickles that attack their reader, written opcode by opcode.

Run as a program (`python hostile.py FOLDER`), it reads them all one after another in a
process of its own, since a reader that falls for one may not survive it.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

NUMBERS = np.arange(1, 9, dtype=np.float32)


def name(module, what):
    """GLOBAL."""
    return f"c{module}\n{what}\n".encode()


def text(value):
    """BINUNICODE."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value):
    """LONG1 of eight bytes."""
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def row(*parts):
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(what, *arguments):
    """REDUCE."""
    return what + row(*arguments) + b"R"


def storage(kind="FloatStorage", key="0", count=8):
    """A storage of torch's by its persistent id."""
    pid = [text("storage"), name("torch", kind), text(key), text("cpu"), number(count)]
    return row(*pid) + b"Q"


def tensor(held=None, size=(8,), stride=(1,), offset=0):
    """A view of a storage."""
    sizes, strides = row(*map(number, size)), row(*map(number, stride))
    hooks = name("collections", "OrderedDict") + b")R"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    held = storage() if held is None else held
    return call(rebuild, held, number(offset), sizes, strides, b"\x89", hooks)


def put(key, value):
    """{key: value}."""
    return b"}" + text(key) + value + b"s"


def module(fields):
    """An object of a TorchScript archive."""
    return name("__torch__.x", "M") + b")\x81" + fields + b"b"


def state(slots):
    """What pickle takes for the state of an object with slots: (None, {...})."""
    return row(b"N", slots)


TOUCH = text("import os; os.environ['TOUCHED'] = '1'")
TYPE = row(*map(number, [3]), text("|"), b"N", b"N", b"N", number(64), number(1))
BFLOAT = name("torch", "BFloat16Storage")
DOUBLING = b"(lp0\n" + b"".join(
    b"(" + f"g{i}\n".encode() * 2 + b"l" + f"p{i + 1}\n".encode() for i in range(60)
)
MODULES = (
    module(b"}")
    + b"p0\n"
    + b"".join(
        module(
            b"}"
            + text("a")
            + f"g{i}\n".encode()
            + b"s"
            + text("b")
            + f"g{i}\ns".encode()
        )
        + f"p{i + 1}\n".encode()
        for i in range(50)
    )
)
OBJECTS = call(name("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
PLAIN = call(name("numpy", "dtype"), text("f8"), b"\x89", b"\x88")
ARRAY = call(
    name("numpy.core.multiarray", "_reconstruct"),
    name("numpy", "ndarray"),
    row(number(0)),
    b"C\x01b",
)
ATTACKS = {
    # another function is named, called or looked up
    "reduce": call(name("builtins", "exec"), TOUCH),
    "reduce of os": call(name("posix", "putenv"), text("TOUCHED"), text("1")),
    "stack global": text("builtins") + text("exec") + b"\x93" + row(TOUCH) + b"R",
    "getattr": call(name("builtins", "getattr"), tensor(), text("dump")),
    "dotted": call(name("torch._utils", "os.system"), text("true")),
    "our own": call(name("dalle2_jax.convert.containers", "write"), text("x"), b"}"),
    "pickle in pickle": call(name("_pickle", "loads"), b"C\x02N."),
    "inst": b"(" + TOUCH + b"ibuiltins\nexec\n",
    "obj": b"(" + name("builtins", "exec") + TOUCH + b"o",
    "newobj": name("builtins", "exec") + row(TOUCH) + b"\x81",
    "newobj ex": name("builtins", "exec") + row(TOUCH) + b"}\x92",
    "newobj of ours": name("collections", "OrderedDict") + b")\x81",
    "ext1": b"\x82\x01",
    "ext2": b"\x83\x01\x00",
    "ext4": b"\x84\x01\x00\x00\x00",
    # attributes of classes, functions and element types are set
    "type": BFLOAT + TYPE + b"b",
    "type by slots": BFLOAT + state(put("names", b"N")) + b"b",
    "class": name("__torch__.x", "M") + state(put("__init__", b"N")) + b"b",
    "class of state": name("torch.optim.sgd", "SGD") + state(put("x", b"N")) + b"b",
    "function": name("torch._utils", "_rebuild_tensor_v2")
    + state(put("__defaults__", row(b"N")))
    + b"b",
    "module by slots": name("__torch__.x", "M")
    + b")\x81"
    + state(put("x", b"N"))
    + b"b",
    "tensor's": tensor() + state(put("shape", row(number(99)))) + b"b",
    "storage's": storage() + put("count", number(9**9)) + b"b",
    # numbers that are not in the file
    "tensor of a tensor": put(
        "a", tensor(tensor(size=(4096,), stride=(0,)), (4096,), (1,))
    ),
    "parameter of a tensor": put(
        "a",
        tensor(
            call(
                name("torch._utils", "_rebuild_parameter"),
                tensor(size=(4096,), stride=(0,)),
                b"\x89",
                b"}",
            )
        ),
    ),
    "repeated": put("a", tensor(size=(10**12,), stride=(0,))),
    "repeated a little": put("a", tensor(size=(9,), stride=(0,))),
    "beyond": put("a", tensor(size=(9,))),
    "beyond by stride": put("a", tensor(size=(2,), stride=(8,))),
    "before": put("a", tensor(offset=-1)),
    "backwards": put("a", tensor(size=(2,), stride=(-1,), offset=4)),
    "beyond all numbers": put("a", tensor(size=(2**62, 2**62), stride=(2**62, 1))),
    "empty and endless": put("a", tensor(size=(0, 2**47, 2**47), stride=(1, 1, 1))),
    "many axes": put("a", tensor(size=(1,) * 70, stride=(1,) * 70)),
    "true for one": put("a", tensor().replace(number(8), b"\x88")),
    "wider type": put("a", tensor(storage("DoubleStorage"))),
    "count too large": put("a", tensor(storage(count=10**15))),
    "no such storage": put("a", tensor(storage(key="../data.pkl"))),
    "bytes for a storage": put("a", tensor(b"C\x04abcd")),
    "list for a size": put(
        "a", tensor().replace(row(number(8)), b"(" + number(8) + b"l")
    ),
    # references that are none
    "text id": b"P0\n",
    "bytes id": b"C\x01xQ",
    "tuple id": row(text("module"), b"N", b"N", b"N", b"N") + b"Q",
    "id of another type": row(text("storage"), text("f4"), text("0"), b"N", number(8))
    + b"Q",
    "id of a call": row(
        text("storage"), name("collections", "OrderedDict"), text("0"), b"N", number(8)
    )
    + b"Q",
    "element type float8": put("a", storage("float8_e4m3fn")),
    # calls with other arguments
    "arity": call(name("torch._utils", "_rebuild_tensor_v2")),
    "size of a number": call(name("torch", "Size"), number(3)),
    "call of a tensor": tensor() + b")R",
    "call with a list": name("torch", "Size") + b"]R",
    "dict of a number": call(name("collections", "OrderedDict"), number(3)),
    "objects": put(
        "a",
        ARRAY
        + row(number(1), row(number(1)), OBJECTS, b"\x89", b"C\x08abcdefgh")
        + b"b",
    ),
    "array beyond": put(
        "a",
        ARRAY + row(number(1), row(number(9)), PLAIN, b"\x89", b"C\x08abcdefgh") + b"b",
    ),
    "scalar beyond": call(name("numpy.core.multiarray", "scalar"), PLAIN, b"C\x01a"),
    # size
    "memo": b"Nr\xff\xff\xff\xff" * 3 + b"j\xfe\xff\xff\xff",
    "memo never put": b"h\x07",
    "long": b"\x8b" + (40_000).to_bytes(4, "little") + b"\x7f" * 40_000,
    "long that is not there": b"\x8b\xff\xff\xff\x7f",
    "bytes that are not there": b"\x8e" + (2**62).to_bytes(8, "little"),
    "text that is not there": b"\x8d" + (2**40).to_bytes(8, "little") + b"a",
    "deep list": b"]" + b"]a" * 0 + b"(" * 100_000 + b"l" * 100_000,
    "deep tuple": b")" + b"\x85" * 200_000,
    "deep tuple as a key": b"}" + b")" + b"\x85" * 200_000 + b"Ns",
    "list in itself": b"]q\x00h\x00a",
    "dict in itself": b"}q\x00" + text("a") + b"h\x00s",
    "module in itself": name("__torch__.x", "M")
    + b")\x81q\x00"
    + put("a", b"h\x00")
    + b"b",
    "modules without end": MODULES,
    "copies without end": b"("
    + text("x" * 10**6)
    + b"q\x000"
    + b"".join([call(name("_codecs", "encode"), b"h\x00", text("latin1"))] * 100)
    + b"l",
    # no pickle
    "nothing": b"",
    "stack": b"0",
    "mark": b"t",
    "append to a tuple": b")Na",
    "item of a tensor": tensor() + text("a") + b"Ns",
    "odd items": b"}(" + text("a") + b"u",
    "opcode": b"\xff",
    "set": b"\x8f(" + text("a") + b"\x90",
    "buffer": b"\x97",
}
READ = {  # these hurt nobody
    "doubling": DOUBLING,
    "type of a number": PLAIN + TYPE + b"b",
    "views": put("a", tensor(size=(2, 3), stride=(4, 1), offset=1)),
    "scalar": put(
        "a", call(name("numpy.core.multiarray", "scalar"), PLAIN, b"C\x08" + b"\0" * 8)
    ),
}


def write_archive(path, pickled):
    """torch's zip archive around the opcodes, with one storage of NUMBERS."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + pickled + b".")
        archive.writestr("m/data/0", NUMBERS.tobytes())


def write_all(folder):
    """Every attack as a file "NAME.pt" in a folder."""
    for what, pickled in {**ATTACKS, **READ}.items():
        write_archive(Path(folder) / f"{what}.pt", pickled)


def main(folder):
    """Reads them all; prints {name: "read" or the sentence}, and what has changed."""
    import os

    import ml_dtypes

    from dalle2_jax.convert import containers, pickle_calls, pickles, views
    from dalle2_jax.errors import BadInput

    def attributes():
        found = {}
        for part in (containers, pickles, pickle_calls, views):
            for what, value in vars(part).items():
                inner = vars(value) if hasattr(value, "__dict__") else {}
                found[f"{part.__name__}.{what}"] = sorted(map(str, inner))
                found[f"{part.__name__}.{what}()"] = str(
                    getattr(value, "__defaults__", None)
                )
        return found

    before, outcomes = attributes(), {}
    for path in sorted(Path(folder).glob("*.pt")):
        try:
            tree = containers.read(path)
        except BadInput as error:
            outcomes[path.stem] = str(error)
            continue
        outcomes[path.stem] = "read"
        values = tree.values() if isinstance(tree, dict) else ()
        for array in (v for v in values if isinstance(v, np.ndarray)):
            assert set(array.ravel().tolist()) <= set(NUMBERS.tolist()), path
    changed = [k for k, v in attributes().items() if before.get(k) != v]
    widths = [np.dtype(ml_dtypes.bfloat16).itemsize, np.dtype(np.float64).itemsize]
    np.zeros(1000, ml_dtypes.bfloat16).astype(np.float32).sum()
    touched = "TOUCHED" in os.environ
    print(
        json.dumps(
            {
                "outcomes": outcomes,
                "changed": changed,
                "widths": widths,
                "touched": touched,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
