"""Hostile files out of good ones. `draw` is a random.Random, or Hypothesis' in its place: it alone decides."""

import gzip
import io
import json
import pickletools
import struct
import tarfile
import zlib

INTERESTING = (0, 1, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
               2**64 - 1)
DEEP = 20_000  # levels of nesting: more than any parser's stack takes
PIECE = 400  # bytes: the longest that is repeated, removed or moved


def noise(draw, content):
    """Flip bits, overwrite numbers, cut, repeat, remove and move pieces."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        at, long = draw.randrange(len(data)), draw.randint(1, min(PIECE, len(data)))
        kind = draw.randrange(8)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.randrange(256)
        elif kind == 2:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(INTERESTING) % 256**size
            data[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = data[at : at + long]
        elif kind == 5:
            del data[at : at + long]
        elif kind == 6:
            piece = data[at : at + long]
            del data[at : at + long]
            to = draw.randrange(len(data) + 1)
            data[to:to] = piece
        else:
            data += bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
    return bytes(data)


VALUES = (None, True, False, 0, 1, -1, 2, 10, 255, 2**31, 2**53, 2**63, 2**64, 10**30, -10**400, 0.0, -0.0, 0.5, 1e308,
          -1e-320, float("nan"), float("inf"), -float("inf"), "", "a", "0", "\0", "\ud800", "x" * 2000, "model", [], {},
          [[]], [1], [1, 2, 3], {"": None}, {"name": "mlp3"}, {"tuple": "tuple", "of": [1]})


def tree(draw, value):
    """The JSON value with one or a few of its parts exchanged, removed, doubled or moved."""
    value = _copy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        places = list(_places(value)) if isinstance(value, list | dict) else []
        if not places:
            return _any(draw)
        owner, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind < 2:
            owner[key] = _any(draw)
        elif kind == 2:
            del owner[key]
        elif kind == 3:
            other, there = draw.choice(places)
            owner[key] = _copy(other[there]) if _holds(other, there) else _any(draw)
        elif isinstance(owner, list):
            owner.insert(draw.randrange(len(owner) + 1), _copy(owner[key]))
        elif kind == 4:
            owner[draw.choice(("", "x", "name", "__metadata__", str(key) + "s"))] = owner.pop(key)
        else:
            number = owner[key]
            plain = isinstance(number, int | float) and not isinstance(number, bool)
            owner[key] = draw.choice((-number, number + 1, str(number), [number])) if plain else [number]
    return value


def _any(draw):
    return _copy(draw.choice(VALUES))


def _copy(value):
    return json.loads(json.dumps(value))


def _places(value):
    stack = [value]
    while stack:
        owner = stack.pop()
        keys = range(len(owner)) if isinstance(owner, list) else list(owner)
        for key in keys:
            yield owner, key
            if isinstance(owner[key], list | dict):
                stack.append(owner[key])


def _holds(owner, key):
    return key < len(owner) if isinstance(owner, list) else key in owner


def text_of(draw, value):
    """The value as JSON, NaN and all; now and then nested beyond any stack, with a key twice or digits without end."""
    text = json.dumps(value)
    kind = draw.randrange(30)
    if kind == 0:
        return draw.choice(("[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP))
    if kind == 1:
        return text.replace("1", "1" * 6000, 1)
    if kind == 2 and text.startswith("{") and len(text) > 2:
        return text[:-1] + "," + text[1:]
    if kind == 3:
        return text[:-1] + ', "deep": ' + "[" * DEEP + "]" * DEEP + text[-1]
    return text


def json_file(draw, content):
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return noise(draw, content)
    return text_of(draw, tree(draw, value)).encode("utf-8", "surrogatepass")


def json_lines(draw, content):
    """Lines exchanged, doubled, removed, torn; or the JSON in one of them."""
    lines = content.split(b"\n")
    for _ in range(draw.choice((1, 1, 2))):
        at = draw.randrange(len(lines))
        kind = draw.randrange(8)
        if kind < 4:
            lines[at] = json_file(draw, lines[at])
        elif kind == 4:
            lines.insert(draw.randrange(len(lines) + 1), lines[at])
        elif kind == 5:
            to = draw.randrange(len(lines))
            lines[at], lines[to] = lines[to], lines[at]
        elif kind == 6 and len(lines) > 1:
            del lines[at]
        else:
            lines[at] = noise(draw, lines[at])
    return b"\n".join(lines)


def tensors(draw, content):
    """The header of a safetensors file, or the metadata in it; the checksum of ours is mended two times in three."""
    try:
        size = int.from_bytes(content[:8], "little")
        header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
        metadata = header["__metadata__"]
        own = json.loads(metadata["fastnet"]) if "fastnet" in metadata else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return noise(draw, content)
    if not all(isinstance(one, dict) for one in (metadata, *header.values())):
        return noise(draw, content)
    own = own if isinstance(own, dict) else None
    kind = draw.randrange(6)
    if kind == 0:
        header = tree(draw, header)
    elif kind == 1:
        entry = header[draw.choice(list(header))]
        field = draw.choice(("dtype", "shape", "data_offsets"))
        entry[field] = draw.choice({"dtype": ("F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "F4"),
                                    "shape": ([2**32, 2**32], [0], [2**63], [-1], [], [1] * 70, [2**62, 0]),
                                    "data_offsets": ([0, 0], [0, len(body)], [8, 4], [2**63, 2**63 + 4])}[field])
    elif kind == 2 and body:
        body = noise(draw, body)
    elif own is not None:
        metadata["fastnet"] = text_of(draw, tree(draw, own))
    else:
        metadata["fastnet"] = draw.choice(("{}", "[]", "1", ""))
    if draw.randrange(3):
        _mend(header, body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    size = len(text) if draw.randrange(12) else draw.choice(INTERESTING)
    return struct.pack("<Q", size % 2**64) + text + body


def _mend(header, body):
    """Give the file the checksum that its content has, where it is one that has content."""
    import numpy as np

    kinds = {"F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64", "U8": "uint8", "BOOL": "bool"}
    try:
        metadata = header["__metadata__"]
        found = zlib.crc32(f"{int(metadata['format'])} {metadata['fastnet']}".encode())
        for name in sorted(set(header) - {"__metadata__"}):
            one = header[name]
            kind, start, end = kinds[one["dtype"]], *one["data_offsets"]
            found = zlib.crc32(f"{name} {np.dtype(kind)} {tuple(one['shape'])}".encode(), found)
            found = zlib.crc32(body[start:end], found)
        metadata["crc32"] = f"{found:08x}"
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        pass


OPCODES = (b"}", b"]", b")", b"(", b"0", b"1", b"2", b"a", b"b", b"e", b"s", b"u", b"t", b"d", b"l", b"R", b"o", b"N",
           b"\x81", b"\x92", b"\x93", b"\x94", b"\x97", b"\x98", b"\x88", b"\x8f", b"\x90", b"\x91", b".",
           b"cos\nsystem\n", b"c__builtin__\neval\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"ios\nsystem\n",
           b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n", b"P1\n", b"Q", b"\x80\x05", b"\x82\x01",
           b"p200000\n", b"r\xff\xff\xff\x7f", b"j\xff\xff\xff\x7f", b"g0\n", b"h\x00", b"q\x00",
           b"X\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
           b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f",
           b"T\xff\xff\xff\x7f", b"B\xff\xff\xff\x7f", b"L" + b"9" * 5000 + b"L\n", b"I" + b"9" * 5000 + b"\n",
           b"F1e999\n", b"Fnan\n", b"S'a'\n", b"Va\\ud800\n", b"K\x0a", b"M\xff\xff", b"J\xff\xff\xff\xff")


def opcodes(draw, content):
    """The opcodes of a pickle removed, doubled, exchanged, or foreign ones among them."""
    try:
        starts = [at for _, _, at in pickletools.genops(content)]
    except Exception:
        return noise(draw, content)
    parts = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(parts))
        kind = draw.randrange(6)
        if kind < 2:
            parts.insert(at, draw.choice(OPCODES))
        elif kind == 2:
            parts[at] = draw.choice(OPCODES)
        elif kind == 3 and len(parts) > 1:
            del parts[at]
        elif kind == 4:
            other = draw.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at:at] = [parts[at]] * draw.choice((1, 2, 30))
    if not draw.randrange(400):
        parts = [draw.choice((b"(", b"]", b"}", b")", b"]\x85", b"2"))] * draw.choice((1000, 150_000, 250_000)) + parts
    return b"".join(parts)


NAMES = ("/etc/passwd", "../../x", "a/../../b", ".", "..", "", "a" * 300, "cifar-10-batches-bin/", "\0", "-", "x\ny",
         "cifar-10-batches-bin/data_batch_1.bin")
TYPES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
         tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
         tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"V", b"\xff")
SIZES = (b"00000000000\0", b"77777777777\0", b"-0000000001\0", b"\x80" + b"\0" * 3 + b"\x7f" * 8, b"\xff" * 12,
         b"           \0", b"99999999999\0", b"00000001000\0")
BOMB = gzip.compress(bytes(1 << 24), 9)  # 16 kB that become 16 MB
NESTED = gzip.compress(BOMB)


def archive(draw, content):
    """A .tar.gz whose headers name other places, other types and other sizes, with checksums that are right; bombs."""
    try:
        data = bytearray(gzip.decompress(content))
    except (OSError, EOFError, zlib.error):
        return noise(draw, content)
    blocks = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    kind = draw.randrange(10)
    if kind == 0:
        return noise(draw, content)
    if kind == 1 and not draw.randrange(30):
        return draw.choice((BOMB, NESTED, content + BOMB))
    if kind == 2:
        return gzip.compress(noise(draw, bytes(data)), 1)
    for _ in range(draw.choice((1, 1, 2, 3)) if blocks else 0):
        at = draw.choice(blocks)
        field = draw.randrange(5)
        if field == 0:
            name = draw.choice(NAMES).encode()[:100]
            data[at : at + 100] = name + bytes(100 - len(name))
        elif field == 1:
            data[at + 156 : at + 157] = draw.choice(TYPES)
        elif field == 2:
            data[at + 124 : at + 136] = draw.choice(SIZES)
        elif field == 3:
            data[at + 157 : at + 257] = (draw.choice(NAMES).encode() + bytes(100))[:100]
        else:
            data[at : at + 512] = noise(draw, bytes(data[at : at + 512]))[:512].ljust(512, b"\0")
        if draw.randrange(4):
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    if not draw.randrange(10):
        data[0:0] = extended(draw)
    packed = gzip.compress(bytes(data), 1)
    return packed if draw.randrange(8) else noise(draw, packed)


def extended(draw):
    """A member of extended headers (pax) that ask for what a file is not."""
    records = draw.choice((b"30 path=/etc/passwd\n", b"20 size=-1000000000\n", b"1" * 2000 + b" =\n", b"0 a=b\n",
                           b"99999 a=b\n", b"22 GNU.sparse.major=1\n", b"11 size=-9\n", b"19 hdrcharset=BIN\n"))
    member = tarfile.TarInfo("pax")
    member.type, member.size = draw.choice((tarfile.XHDTYPE, tarfile.XGLTYPE)), len(records)
    out = io.BytesIO()
    out.write(member.tobuf(tarfile.USTAR_FORMAT))
    out.write(records.ljust(-(-len(records) // 512) * 512, b"\0"))
    return out.getvalue()


def picture(draw, content):
    """Chunks of a PNG changed with their checksums right, the size in any image's header, noise."""
    kind = draw.randrange(4)
    if kind == 0 and content.startswith(b"\x89PNG"):
        at, chunks = 8, []
        while at + 12 <= len(content):
            long = int.from_bytes(content[at : at + 4], "big")
            chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + long]))
            at += 12 + long
        if not chunks:
            return noise(draw, content)
        at = draw.randrange(len(chunks))
        name, body = chunks[at]
        if name == b"IHDR" and draw.randrange(2):
            sizes = (0, 1, 9000, 40_000, 2**31 - 1, 2**32 - 1)
            body = struct.pack(">II", draw.choice(sizes), draw.choice(sizes)) + body[8:]
        elif name == b"IDAT" and draw.randrange(2):
            body = zlib.compress(noise(draw, _inflated(body)))
        else:
            body = noise(draw, body)
        if draw.randrange(8):
            chunks[at] = name, body
        else:
            chunks.insert(at, (draw.choice((b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fdAT", b"tRNS", b"PLTE")),
                               draw.choice((b"", b"a\0\0" + zlib.compress(bytes(10**6)), body))))
        return content[:8] + b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(
            ">I", zlib.crc32(name + body)) for name, body in chunks)
    if kind == 1 and content:
        data = bytearray(content)
        at = draw.randrange(min(len(data), 64))
        data[at : at + 2] = draw.choice((0, 1, 255, 4096, 9000, 65535)).to_bytes(2, draw.choice(("big", "little")))
        return bytes(data)
    return noise(draw, content)


def _inflated(body):
    try:
        return zlib.decompressobj().decompress(body, PIECE)
    except zlib.error:
        return body


def words(draw, content):
    """Arguments of a command, with a zero byte between them: changed, doubled, removed, moved."""
    found = content.decode("utf-8", "replace").split("\0")
    hostile = ("", "nan", "inf", "-1", "0", "1e400", "9" * 5000, "--", "-", "=", "a=", "=1", "a=" + "(" * 300,
               "a=" + "-" * 5000 + "1", "a=[" * 300, "a='\\ud800'", "a=1e999", "1x1x1", "x" * 3000, "\u0663", "1_0",
               "3x32x32", "32x32x3", "0,", ",", "--lr", "--option", "--rate", "*=nan", "[=1", "true", "None", "1e-320")
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(found))
        kind = draw.randrange(5)
        if kind < 2:
            found[at] = draw.choice(hostile)
        elif kind == 2:
            found.insert(at, draw.choice(hostile))
        elif kind == 3 and len(found) > 1:
            del found[at]
        else:
            found[at] = noise(draw, found[at].encode("utf-8", "replace")).decode("latin-1").replace("\0", "0")
    return "\0".join(found).encode("utf-8", "replace")
