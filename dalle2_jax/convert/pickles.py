"""torch's pickles -> plain values, by a machine that can make nothing else.

`pickle.Unpickler` hands out real objects and lets a file call them and set their
attributes; with numpy's and ml_dtypes' among them that ends in corrupted memory. Here
the opcodes are walked, and what can be made is: None, numbers, str, bytes, list, tuple,
dict, and the inert records of pickle_calls.py. A name in a file is a token that nobody
can call; a call of a token is a function of pickle_calls.CALLS, or refused.
"""

import io
import pickletools
from typing import Any

from dalle2_jax.convert.pickle_calls import (
    CALLS,
    INERT,
    STORAGES,
    TOKENS,
    Bag,
    Inert,
    Name,
    NumpyArray,
    NumpyType,
    Storage,
    are_sizes,
    array_of,
    byte_order,
    set_items,
)
from dalle2_jax.errors import BadInput

MOST_BYTES = 64 * 2**20  # of one pickle, and of what its calls may copy
MOST_STEPS = 10**7  # opcodes; ten thousand tensors take half a million
MOST_BITS = 128  # of a whole number; torch's own mark has 80
TYPES = ("float", "bfloat", "complex", "int", "uint", "q", "bits")  # torch.float8_...


def load(
    file: io.BytesIO, where: str, storages: dict[str, Storage] | None = None
) -> Any:
    """The value of the pickle that begins here; the file stands behind it afterwards.

    where: what errors call it. storages: gets every storage under its key.

    Raises:
        BadInput: damaged, larger or longer than a file of tensors can be, or it asks
            for anything but tensors and plain values.
    """
    machine = _Machine(where, {} if storages is None else storages)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_STEPS:
                raise ValueError(f"more than {MOST_STEPS:,} steps")
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in STEPS:
                raise ValueError(f"the opcode {opcode.name}, which tensors do not need")
            STEPS[opcode.name](machine, argument)
    except BadInput:
        raise
    except (ValueError, IndexError, KeyError) as error:  # genops, the stack, the memo
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BadInput(
            f"{where} is incomplete or damaged, or no file of tensors ({reason}); "
            "download it again."
        ) from error
    raise BadInput(f"{where} is incomplete or damaged; download it again.")


class _Machine:
    """The stack, the marked stacks below it and the memo of one pickle."""

    def __init__(self, where, storages):
        self.where, self.storages = where, storages
        self.stack, self.below, self.memo = [], [], {}
        self.copied = 0

    def pop(self):
        return self.stack.pop()

    def push(self, value):
        self.stack.append(value)

    def top(self, kind):
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"a change of what is no {kind.__name__}")
        return self.stack[-1]

    def since_mark(self):
        found, self.stack = self.stack, self.below.pop()
        return found

    def copying(self, count):
        """Counts what calls copy: one value may be given to many of them."""
        self.copied += count
        if self.copied > MOST_BYTES:
            raise ValueError("a value that is copied too often")

    def token(self, module, name):
        """The token of a name, where a file of tensors may hold it."""
        known = (module, name) in CALLS or (module, name) in TOKENS
        known = known or module == "torch" and name in STORAGES
        if known or module.startswith(("__torch__", *INERT)):
            return Name(module, name)
        typed = name.startswith(TYPES) or name.endswith("Storage")
        if module == "torch" and typed:
            raise BadInput(
                f"{self.where} holds numbers of the type {module}.{name}, which is not "
                "supported; save it as float32, float16 or bfloat16."
            )
        raise BadInput(
            f"{self.where} asks for {module}.{name}, which is no tensor and was "
            "not run; convert the file to safetensors where it comes from."
        )


def _value(machine, argument):
    if type(argument) is int and argument.bit_length() > MOST_BITS:
        raise ValueError("a whole number that is too large")
    machine.push(argument)


def _mark(machine, _):
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine, _):
    if machine.stack:
        machine.pop()
    else:  # as pickle has it: the mark itself
        machine.since_mark()


def _tuple_of(count):
    def step(machine, _):
        parts = [machine.pop() for _ in range(count)][::-1]
        machine.push(tuple(parts))

    return step


def _append(machine, _):
    value = machine.pop()
    machine.top(list).append(value)


def _appends(machine, _):
    values = machine.since_mark()
    machine.top(list).extend(values)


def _setitem(machine, _):
    value, key = machine.pop(), machine.pop()
    set_items(machine.top(dict), [key], [value])


def _setitems(machine, _):
    found = machine.since_mark()
    set_items(machine.top(dict), found[::2], found[1::2])


def _dict_of_mark(machine, _):
    found, made = machine.since_mark(), {}
    set_items(made, found[::2], found[1::2])
    machine.push(made)


def _put(machine, index):
    machine.memo[index] = machine.stack[-1]


def _global(machine, argument):
    module, _, name = argument.partition(" ")
    machine.push(machine.token(module, name))


def _stack_global(machine, _):
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("a name that is no text")
    machine.push(machine.token(module, name))


def _persistent(machine, _):
    """The pid ("storage", type, key, device, count[, view]) of torch."""
    pid = machine.pop()
    whole = isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"
    view = pid[5] if whole and len(pid) == 6 else None
    if not whole or not isinstance(pid[1], Name) or view is not None:
        raise ValueError("a reference that is no storage")
    _, kind, key, _, count = pid[:5]
    named = kind.module in ("torch", "torch.storage") and kind.name in STORAGES
    if not (named and isinstance(key, str) and are_sizes([count])):
        raise ValueError("a storage without type, key or size")
    made = Storage(STORAGES[kind.name], key, count)
    machine.storages.setdefault(key, made)
    machine.push(made)


def _reduce(machine, _):
    arguments, called = machine.pop(), machine.pop()
    if not isinstance(called, Name) or not isinstance(arguments, tuple):
        raise ValueError("a call of what is no name")
    if called.module.startswith(INERT):
        return machine.push(Inert(arguments))
    call = CALLS.get((called.module, called.name))
    if call is None or not call.least <= len(arguments) <= call.most:
        raise ValueError(
            f"a call of {called.module}.{called.name} with {len(arguments)} arguments"
        )
    return machine.push(call.make(machine, *arguments))


def _new(machine, _):
    arguments, kind = machine.pop(), machine.pop()
    if not isinstance(kind, Name) or not isinstance(arguments, tuple):
        raise ValueError("an instance of what is no class")
    if kind.module.startswith(INERT):
        return machine.push(Inert(arguments))
    if not kind.module.startswith("__torch__"):
        raise ValueError(f"an instance of {kind.module}.{kind.name}")
    return machine.push(Bag({}))


def _build(machine, _):
    """Gives an inert record its state; nothing else has one."""
    state, made = machine.pop(), machine.stack[-1]
    if isinstance(made, dict):
        return  # an OrderedDict's _metadata
    if isinstance(made, Inert):
        made.state = state
    elif isinstance(made, Bag) and isinstance(state, dict):
        made.fields = state
    elif isinstance(made, NumpyType):
        made.order = byte_order(state)
    elif isinstance(made, NumpyArray):
        made.value = array_of(machine, state)
    else:
        raise ValueError("a state for what has none")


STEPS = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.since_mark() and None,
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "DICT": _dict_of_mark,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "BINPERSID": _persistent,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "BUILD": _build,
}
for _name in ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"):
    STEPS[_name] = _value
for _name in ("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"):
    STEPS[_name] = _value
for _name in ("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"):
    STEPS[_name] = _value
for _name in ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"):
    STEPS[_name] = _value
for _name in ("PUT", "BINPUT", "LONG_BINPUT"):
    STEPS[_name] = _put
for _name in ("GET", "BINGET", "LONG_BINGET"):
    STEPS[_name] = lambda machine, index: machine.push(machine.memo[index])
for _count, _name in enumerate(("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")):
    STEPS[_name] = _tuple_of(_count)
