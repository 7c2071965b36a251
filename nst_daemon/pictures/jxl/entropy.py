"""JPEG XL's entropy coding, as far as ICC profiles use it (ISO/IEC 18181-1, annex C).

libjxl decodes profiles too, but its Python bindings do not return them.
"""

from __future__ import annotations

from collections.abc import Sequence

from nst_daemon.pictures.jxl.header import Bits

_ANS_BITS = 12
_ANS_SIZE = 1 << _ANS_BITS
_ANS_END = 0x130000
_WINDOW = 1 << 20
#: (symbol, what is added to the state, the factor of the state) for each remainder of the state.
_AnsTable = list[tuple[int, int, int]]
#: (length, symbol) for each of the next bits.
_PrefixTable = list[tuple[int, int]]

# Prefix codes: length → the codes, lowest bit first, and what they mean.

#: The logarithms of frequencies; 13 repeats the last frequency.
_LOGARITHMS = {
    3: {0: 10, 2: 7, 4: 6, 5: 8, 6: 9},
    4: {3: 3, 7: 5, 9: 4, 11: 1, 15: 2},
    5: {17: 0},
    6: {33: 11},
    7: {1: 12, 65: 13},
}
_REPEATED = 13
#: The lengths of the codes for lengths.
_LENGTHS = {2: {0: 0, 1: 4, 2: 3}, 3: {3: 2}, 4: {7: 1, 15: 5}}
_LENGTHS_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)


class SymbolReader:
    """Reads integers that are coded with one distribution for each cluster of contexts."""

    def __init__(self, bits: Bits, contexts: int) -> None:
        """Read the distributions.

        Args:
            bits: At the beginning of the distributions.
            contexts: Number of contexts.

        Raises:
            EOFError: The data end before.
            ValueError: The data are not valid.
        """
        self._bits = bits
        self._least_copy, self._shortest, self._copied, self._distance = 0, 0, 0, 0
        self._lengths = (0, 0, 0)
        self._values: list[int] = []
        copies = bits.flag()
        if copies:
            self._least_copy = bits.u32((224, 0), (512, 0), (4096, 0), (8, 15))
            self._shortest = bits.u32((3, 0), (4, 0), (5, 2), (9, 8))
            self._lengths = _integer_layout(bits, 8)
        self._copies = copies
        self._clusters = _clusters(bits, contexts + copies) if contexts + copies > 1 else [0]
        count = max(self._clusters) + 1
        self._prefix = bits.flag()
        log_alphabet = 15 if self._prefix else 5 + bits.read(2)
        self._layouts = [_integer_layout(bits, log_alphabet) for _ in range(count)]
        self._ans: list[_AnsTable] = []
        self._codes: list[_PrefixTable] = []
        if self._prefix:
            sizes = [1 + _short(bits, 4) for _ in range(count)]
            self._codes = [_prefix_code(bits, size) for size in sizes]
            self._state = _ANS_END
        else:
            self._ans = [_ans_table(_frequencies(bits), log_alphabet) for _ in range(count)]
            self._state = bits.read(32)

    def read(self, context: int) -> int:
        """The next integer."""
        if not self._copies:
            cluster = self._clusters[context]
            return _integer(self._bits, self._layouts[cluster], self._symbol(cluster))
        if not self._copied:
            cluster = self._clusters[context]
            symbol = self._symbol(cluster)
            if symbol < self._least_copy:
                value = _integer(self._bits, self._layouts[cluster], symbol)
                self._values.append(value)
                return value
            symbol -= self._least_copy
            self._copied = self._shortest + _integer(self._bits, self._lengths, symbol)
            cluster = self._clusters[-1]
            distance = 1 + _integer(self._bits, self._layouts[cluster], self._symbol(cluster))
            self._distance = min(distance, len(self._values), _WINDOW)
        self._copied -= 1
        self._values.append(self._values[-self._distance] if self._distance else 0)
        return self._values[-1]

    def finish(self) -> None:
        """Check the end.

        Raises:
            ValueError: What was read is not valid.
        """
        if self._state != _ANS_END:
            raise ValueError("entropy-coded data of the JPEG XL file are damaged")

    def _symbol(self, cluster: int) -> int:
        bits = self._bits
        if self._prefix:
            table = self._codes[cluster]
            length, symbol = table[bits.peek(len(table).bit_length() - 1)]
            bits.read(length)
            return symbol
        state = self._state
        symbol, offset, frequency = self._ans[cluster][state & _ANS_SIZE - 1]
        state = frequency * (state >> _ANS_BITS) + offset
        self._state = state << 16 | bits.read(16) if state < 1 << 16 else state
        return symbol


def _short(bits: Bits, count: int) -> int:
    """An integer with the number of its bits in front."""
    if not bits.flag():
        return 0
    length = bits.read(count)
    return (1 << length) + bits.read(length)


def _coded(bits: Bits, code: dict[int, dict[int, int]]) -> int:
    for length, codes in code.items():
        found = codes.get(bits.peek(length))
        if found is not None:
            bits.read(length)
            return found
    raise ValueError("a code of the JPEG XL file is not valid")


def _integer_layout(bits: Bits, log_alphabet: int) -> tuple[int, int, int]:
    """How symbols and bits that follow make integers: the exponent of the split, high and low bits in the symbol."""
    split = bits.read(log_alphabet.bit_length())
    if split == log_alphabet:
        return split, 0, 0
    high = bits.read(split.bit_length())
    if high > split:
        raise ValueError("a layout of integers of the JPEG XL file is not valid")
    low = bits.read((split - high).bit_length())
    if split > log_alphabet or high + low > split:
        raise ValueError("a layout of integers of the JPEG XL file is not valid")
    return split, high, low


def _integer(bits: Bits, layout: tuple[int, int, int], symbol: int) -> int:
    split, high, low = layout
    if symbol < 1 << split:
        return symbol
    count = split - high - low + ((symbol - (1 << split)) >> (high + low))
    if count > 31:
        raise ValueError("an integer of the JPEG XL file is too large")
    lowest = symbol & (1 << low) - 1
    symbol = symbol >> low & (1 << high) - 1 | 1 << high
    return (symbol << count | bits.read(count)) << low | lowest


def _clusters(bits: Bits, contexts: int) -> list[int]:
    """The number of the distribution of each context."""
    if bits.flag():
        count = bits.read(2)
        return [bits.read(count) for _ in range(contexts)]
    moved = bits.flag()
    reader = SymbolReader(bits, 1) if contexts > 2 else _without_copies(bits)
    found = [reader.read(0) for _ in range(contexts)]
    reader.finish()
    if max(found) > 255:
        raise ValueError("the JPEG XL file has too many distributions")
    return _moved_back(found) if moved else found


def _without_copies(bits: Bits) -> SymbolReader:
    """Copies are not allowed for so few numbers, which ends the recursion."""
    if bits.peek(1):
        raise ValueError("the clusters of the JPEG XL file are not valid")
    return SymbolReader(bits, 1)


def _moved_back(numbers: Sequence[int]) -> list[int]:
    """Undo the transformation that moves each number that occurs to the front."""
    order, found = list(range(256)), []
    for number in numbers:
        order.insert(0, order.pop(number))
        found.append(order[0])
    return found


def _frequencies(bits: Bits) -> list[int]:
    """The frequency of each symbol, in 1/4096."""
    if bits.flag():
        symbols = [_short(bits, 3) for _ in range(1 + bits.read(1))]
        found = [0] * (max(symbols) + 1)
        found[symbols[0]] = bits.read(_ANS_BITS) if len(symbols) == 2 else _ANS_SIZE
        if len(symbols) == 2:
            found[symbols[1]] = _ANS_SIZE - found[symbols[0]]
    elif bits.flag():
        size = 1 + _short(bits, 3)
        found = [_ANS_SIZE // size + (i < _ANS_SIZE % size) for i in range(size)]
    else:
        found = _precise_frequencies(bits)
    if sum(found) != _ANS_SIZE or min(found) < 0:
        raise ValueError("a distribution of the JPEG XL file is not valid")
    return found


def _precise_frequencies(bits: Bits) -> list[int]:
    length = 0
    while length < 3 and bits.flag():
        length += 1
    shift = (bits.read(length) | 1 << length) - 1
    if shift > _REPEATED:
        raise ValueError("a distribution of the JPEG XL file is not valid")
    size = 3 + _short(bits, 3)
    logarithms: list[int] = []
    repeats: dict[int, int] = {}  # first symbol → number of symbols with the frequency before it
    while len(logarithms) < size:
        logarithm = _coded(bits, _LOGARITHMS)
        if logarithm == _REPEATED:
            repeats[len(logarithms)] = count = 4 + _short(bits, 3)
            logarithms += [-1] * count
        else:
            logarithms.append(logarithm)
    if len(logarithms) > size:
        raise ValueError("a distribution of the JPEG XL file is not valid")
    rest = logarithms.index(max(logarithms))  # this symbol has what the others leave
    found: list[int] = []
    for i, logarithm in enumerate(logarithms):
        if i in repeats:
            found += [found[-1] if found else 0] * repeats[i]
        if logarithm < 0:
            continue
        if i == rest or logarithm < 2:
            found.append(0 if i == rest else logarithm)
            continue
        precision = min(logarithm - 1, shift - (_ANS_BITS - logarithm + 1 >> 1))
        precision = max(0, precision)
        found.append((1 << logarithm - 1) + (bits.read(precision) << logarithm - 1 - precision))
    found[rest] = _ANS_SIZE - sum(found)
    if found[rest] <= 0:
        raise ValueError("a distribution of the JPEG XL file is not valid")
    return found


def _ans_table(frequencies: list[int], log_alphabet: int) -> _AnsTable:
    """The alias table of a distribution (C.2.6)."""
    size = 1 << log_alphabet
    if len(frequencies) > size and any(frequencies[size:]):
        raise ValueError("a distribution of the JPEG XL file has too many symbols")
    frequencies = (frequencies + [0] * size)[:size]
    if _ANS_SIZE in frequencies:
        symbol = frequencies.index(_ANS_SIZE)
        return [(symbol, i, _ANS_SIZE) for i in range(_ANS_SIZE)]
    bucket = _ANS_SIZE >> log_alphabet
    cutoff, others, offsets = list(frequencies), list(range(size)), [0] * size
    over = [i for i in range(size) if cutoff[i] > bucket]
    under = [i for i in range(size) if cutoff[i] < bucket]
    while over:
        full, free = over.pop(), under.pop()
        cutoff[full] -= bucket - cutoff[free]
        others[free], offsets[free] = full, cutoff[full]
        if cutoff[full] < bucket:
            under.append(full)
        elif cutoff[full] > bucket:
            over.append(full)
    table = []
    for i in range(size):
        for place in range(bucket):
            if place < cutoff[i] or cutoff[i] == bucket:
                table.append((i, place, frequencies[i]))
            else:
                other = others[i]
                table.append((other, offsets[i] + place - cutoff[i], frequencies[other]))
    return table


def _prefix_code(bits: Bits, size: int) -> _PrefixTable:
    """A prefix code for so many symbols (as RFC 7932, 3)."""
    if size == 1:
        return [(0, 0)]
    kind = bits.read(2)
    if kind == 1:
        return _prefix_table(_simple_lengths(bits, size))
    lengths, space, used = [0] * 18, 32, 0
    for symbol in _LENGTHS_ORDER[kind:]:
        if space <= 0:
            break
        lengths[symbol] = _coded(bits, _LENGTHS)
        if lengths[symbol]:
            space -= 32 >> lengths[symbol]
            used += 1
    if used != 1 and space:
        raise ValueError("a prefix code of the JPEG XL file is not valid")
    return _prefix_table(dict(enumerate(_code_lengths(bits, lengths, size))))


def _simple_lengths(bits: Bits, size: int) -> dict[int, int]:
    """The lengths of the codes of up to four symbols, in the order of the codes."""
    count = 1 + bits.read(2)
    symbols = [bits.read((size - 1).bit_length()) for _ in range(count)]
    if len(set(symbols)) < count or max(symbols) >= size:
        raise ValueError("a prefix code of the JPEG XL file is not valid")
    if count == 4 and bits.flag():
        return dict(zip(symbols, (1, 2, 3, 3), strict=True))
    return dict(zip(symbols, ((0,), (1, 1), (1, 2, 2), (2, 2, 2, 2))[count - 1], strict=True))


def _code_lengths(bits: Bits, code: list[int], size: int) -> list[int]:
    """The length of the code of each symbol, which a prefix code of lengths and repetitions describes."""
    table = _prefix_table(dict(enumerate(code)))
    width = len(table).bit_length() - 1
    found: list[int] = []
    last, repeated, repeats, space = 8, -1, 0, 1 << 15
    while len(found) < size and space > 0:
        length, symbol = table[bits.peek(width)]
        bits.read(length)
        if symbol < 16:
            found.append(symbol)
            repeats = 0
            if symbol:
                last = symbol
                space -= 1 << 15 - symbol
            continue
        value = last if symbol == 16 else 0
        if value != repeated:
            repeats, repeated = 0, value
        before = repeats
        repeats = (repeats - 2 << symbol - 14 if repeats else 0) + 3 + bits.read(symbol - 14)
        found += [value] * (repeats - before)
        if len(found) > size:
            break
        space -= (repeats - before << 15 - value) if value else 0
    if space or len(found) > size:
        raise ValueError("a prefix code of the JPEG XL file is not valid")
    return found


def _prefix_table(lengths: dict[int, int]) -> _PrefixTable:
    """The code of each symbol follows from the lengths: shorter ones first, then in the order of the symbols."""
    used = sorted((length, symbol) for symbol, length in lengths.items() if length)
    if len(used) < 2:
        symbol = used[0][1] if used else next(iter(lengths), 0)
        return [(0, symbol)]
    width = used[-1][0]
    table: _PrefixTable = [(0, 0)] * (1 << width)
    code = 0
    for length, symbol in used:
        first = int(f"{code:0{width}b}"[::-1], 2)
        table[first :: 1 << length] = [(length, symbol)] * (1 << width - length)
        code += 1 << width - length
    return table
