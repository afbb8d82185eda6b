"""The packets in an Ogg file, so that a bitrate can be counted rather than believed."""

from collections.abc import Iterator

HEADER = 27  # bytes of a page before its table of segments; the last of them says how long that table is


def ogg_packets(data: bytes) -> Iterator[bytes]:
    """The packets of a file with one logical stream, in order, the codec's header packets among them.

    A page (RFC 3533, section 6) is 27 bytes, a table of up to 255 segment lengths, and the segments. A segment of less
    than 255 bytes ends its packet, which may have begun pages earlier.

    Raises:
        ValueError: if the bytes are not pages from beginning to end, or the last packet is not complete.
    """
    position, packet = 0, b""
    while position < len(data):
        if data[position : position + 4] != b"OggS":
            raise ValueError(f"These {len(data)} bytes are no Ogg file: no page begins at byte {position}.")
        table = data[position + HEADER : position + HEADER + data[position + HEADER - 1]]
        position += HEADER + len(table)
        for length in table:
            packet += data[position : position + length]
            position += length
            if length < 255:
                yield packet
                packet = b""
    if packet or position > len(data):
        raise ValueError("The Ogg file ends within a packet.")
