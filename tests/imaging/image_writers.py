"""Image files of any kind, written from their samples: what Pillow and tifffile do not write."""

from __future__ import annotations

import struct
import zlib

import numpy as np

WHITE, BLACK, RGB, PALETTE, STENCIL, CMYK, YCBCR = range(7)
LAB = 8
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773


def write_tiff(*pages: dict | np.ndarray, order: str = "<", **options) -> bytes:
    """Write pages: samples (H, W) or (H, W, C), or a dict of `write_page`'s arguments."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    link = 4
    for page in pages:
        entry = page if isinstance(page, dict) else {"samples": page}
        link = _write_page(out, link, order=order, **{**options, **entry})
    return bytes(out)


def _write_page(
    out: bytearray,
    link: int,
    *,
    samples: np.ndarray,
    order: str,
    photometric: int = BLACK,
    bits: int | None = None,
    planar: bool = False,
    compression: int = NONE,
    predictor: int = 1,
    fill_order: int = 1,
    rows: int = 7,
    tile: int = 0,
    extra: tuple[int, ...] = (),
    orientation: int | None = None,
    missing: tuple[int, ...] = (),
    tags: dict | None = None,
) -> int:
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, channels = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    form = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}[samples.dtype.kind]
    planes = [samples[..., [i]] for i in range(channels)] if planar else [samples]
    segments = []
    for plane in planes:
        if tile:
            for y in range(0, height, tile):
                for x in range(0, width, tile):
                    part = plane[y : y + tile, x : x + tile]
                    pad = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
                    segments.append(np.pad(part, pad))
        else:
            segments += [plane[y : y + rows] for y in range(0, height, rows)]
    offsets, counts = [], []
    for number, segment in enumerate(segments):
        if number in missing:
            offsets.append(0)
            counts.append(0)
            continue
        differences = np.diff(segment, axis=1, prepend=segment.dtype.type(0))
        data = compress(pack(differences if predictor == 2 else segment, bits, order), compression)
        if fill_order == 2:
            data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")).tobytes()
        out += bytes(len(out) % 2)
        offsets.append(len(out))
        counts.append(len(data))
        out += data
    entries = {
        256: (width,),
        257: (height,),
        258: (bits,) * channels,
        259: (compression,),
        262: (photometric,),
        277: (channels,),
        284: (2 if planar else 1,),
        317: (predictor,),
        266: (fill_order,),
        339: (form,) * channels,
    }
    if tile:
        entries |= {322: (tile,), 323: (tile,), 324: tuple(offsets), 325: tuple(counts)}
    else:
        entries |= {273: tuple(offsets), 278: (rows,), 279: tuple(counts)}
    entries |= {338: extra, 274: orientation and (orientation,), **(tags or {})}
    return _write_directory(out, link, order, {tag: value for tag, value in entries.items() if value})


def _write_directory(out: bytearray, link: int, order: str, entries: dict) -> int:
    rows = b""
    for tag, values in sorted(entries.items()):
        long = tag in (256, 257, 273, 278, 279, 324, 325, 254)
        data = struct.pack(f"{order}{len(values)}{'I' if long else 'H'}", *values)
        if len(data) > 4:
            out += bytes(len(out) % 2)
            place = len(out)
            out += data
            data = struct.pack(f"{order}I", place)
        rows += struct.pack(f"{order}HHI", tag, 4 if long else 3, len(values)) + data.ljust(4, b"\0")
    out += bytes(len(out) % 2)
    struct.pack_into(f"{order}I", out, link, len(out))
    out += struct.pack(f"{order}H", len(entries)) + rows + bytes(4)
    return len(out) - 4


def pack(samples: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Pack samples (H, W, C), each row from a new byte."""
    if bits == samples.dtype.itemsize * 8:
        return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    wide = samples.astype(">u4").reshape(len(samples), -1, 1).view(np.uint8)
    each = np.unpackbits(wide, axis=2)[..., 32 - bits :]
    return np.packbits(each.reshape(len(samples), -1), axis=1).tobytes()


def compress(data: bytes, compression: int) -> bytes:
    if compression == DEFLATE:
        return zlib.compress(data)
    if compression == PACKBITS:
        return b"".join(
            bytes([len(data[i : i + 128]) - 1]) + data[i : i + 128] for i in range(0, len(data), 128)
        )
    if compression == LZW:
        # literal codes of 9 bits, cleared before they would grow
        codes = []
        for i in range(0, len(data), 250):
            codes += [256, *data[i : i + 250]]
        return pack(np.array([*codes, 257], np.uint16).reshape(1, -1, 1), 9)
    return data


def write_png(
    samples: np.ndarray,
    *,
    bits: int | None = None,
    colour: int | None = None,
    interlaced: bool = False,
    rows: int | None = None,
    ends: bool = True,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, channels = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if colour is None else colour
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
    lines = b""
    for y, x, down, across in passes:
        part = samples[y::down, x::across]
        if part.size:
            lines += b"".join(b"\0" + pack_row(row, bits) for row in part)
    if rows is not None:
        lines = lines[: rows * (1 + -(-width * channels * bits // 8))]
    packed = zlib.compress(lines)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    body = b"".join(chunk(*one) for one in chunks)
    end = chunk(b"IEND", b"") if ends else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IDAT", packed) + end


def pack_row(row: np.ndarray, bits: int) -> bytes:
    return pack(row[None], bits)


def write_bmp(
    pixels: bytes, width: int, height: int, bits: int, *, palette: bytes = b"", masks=(), packing=0
):
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(pixels), 0, 0, len(palette) // 4, 0
    )
    header += b"".join(struct.pack("<I", mask) for mask in masks)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + palette + pixels
