"""The bytes of a text file -> text; of a file in another encoding than stated, what would fit."""

from __future__ import annotations

import codecs
from pathlib import Path

from fusion_keras.errors import UsageError

# What tables that are not UTF-8 are written in, the likelier first; as whom users know it.
_COMMON = {
    "cp1252": "Western European",
    "gb18030": "GBK",
    "cp932": "Shift-JIS",
    "big5": "traditional Chinese",
    "cp949": "EUC-KR",
    "euc_jp": "Japanese",
    "cp1251": "Cyrillic",
    "cp1250": "Central European",
    "koi8_r": "Russian",
    "cp1253": "Greek",
    "cp1254": "Turkish",
    "cp1255": "Hebrew",
    "cp1256": "Arabic",
    "cp874": "Thai",
}
_PACKED = {b"\x1f\x8b": "a gzip file", b"PK\x03\x04": "a zip file or a spreadsheet (.xlsx)"}
_SAMPLE = 1 << 16
_SHOWN = 4
_LONGEST = 24


def read_text(path: Path, encoding: str = "", setting: str = "") -> str:
    """A whole text file.

    Args:
      path: the file.
      encoding: any that Python knows; "" is UTF-8. A byte-order mark is dropped.
      setting: the flag that sets `encoding`, for the advice; "" where there is none.

    Raises:
      UsageError: the file is missing or unreadable, is not of this encoding, or holds a NUL.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"got {path}, which does not exist; check the path.") from None
    except OSError as error:
        raise UsageError(f"got {path}, which cannot be read: {error.strerror}.") from None
    if kind := next((k for magic, k in _PACKED.items() if content.startswith(magic)), ""):
        raise UsageError(f"got {path}, which is {kind}, wanted text; unpack it, or save it as CSV.")
    codec = _codec(encoding)
    try:
        text = content.decode(codec).removeprefix("\ufeff")
    except UnicodeError as error:
        offset = getattr(error, "start", 0)
        if codec == "utf-8-sig" and content.startswith(codecs.BOM_UTF8):
            offset += len(codecs.BOM_UTF8)  # the codec drops the mark before it counts
        advice = _advice(path, content, offset, setting)
        raise UsageError(_sentence(path, content, offset, encoding or "UTF-8", advice)) from None
    if "\0" not in text:
        return text
    wide = _wide(content) if codec == "utf-8-sig" else ""
    remedy = "remove the NUL byte, or copy the file anew if it is damaged"
    advice = _convert(path, wide, setting) if wide else remedy
    if codec == "utf-8-sig":
        offset = content.find(b"\0")
    else:
        offset = len(text[: text.index("\0")].encode(codec))
    raise UsageError(_sentence(path, content, offset, encoding or "UTF-8", advice))


def _codec(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding or "utf-8").name
        "".encode(name)  # also bytes-to-bytes codecs, such as zip, are registered
    except (LookupError, ValueError):
        raise UsageError(
            f"got the encoding {encoding!r}, wanted one that Python knows; name it as in "
            "utf-8, gb18030, shift_jis or cp1252."
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


def _sentence(path: Path, content: bytes, offset: int, wanted: str, advice: str) -> str:
    line = content.count(b"\n", 0, offset) + 1
    found = f"byte 0x{content[offset]:02x}" if offset < len(content) else "an end"
    return (
        f"got {found} at offset {offset} (line {line}) of {path}, wanted {wanted} text; {advice}."
    )


def _advice(path: Path, content: bytes, offset: int, setting: str) -> str:
    wide = _wide(content)
    if wide:
        return _convert(path, wide, setting)
    if _decodes(content, "utf-8"):
        return f"its bytes are UTF-8: leave {setting} out"
    fitting = fitting_encodings(content)
    if not fitting:
        return "its bytes fit no usual encoding: copy the file anew, it may be damaged"
    begin = content.rfind(b"\n", 0, offset) + 1
    end = content.find(b"\n", offset)
    row = content[begin : end if end >= 0 else len(content)]
    # Of those that read the place alike the first: there is nothing to choose by.
    read: dict[str, str] = {}
    for name in fitting:
        read.setdefault(_excerpt(row, name, offset - begin), name)
    names = list(read.values())[:_SHOWN]
    shown = [f"{name} ({_COMMON[name]}: {excerpt})" for excerpt, name in read.items()][:_SHOWN]
    line = content.count(b"\n", 0, offset) + 1
    told = f"line {line} fits {' or '.join(shown)}"
    return f"{told}: {_convert(path, names[0], setting, len(names) > 1)}"


def _convert(path: Path, name: str, setting: str, choice: bool = False) -> str:
    which = "say which it is" if choice else "say so"
    tool = name.upper().replace("_", "-")
    command = f"`iconv -f {tool} -t UTF-8 {path.name}`"
    if not setting:
        return f"{which} and convert the file, for example with {command}"
    return f"{which} with {setting}={name}, or convert the file, for example with {command}"


def _excerpt(row: bytes, name: str, at: int) -> str:
    """What is about the offending byte of a line, as this encoding reads it."""
    before = len(row[:at].decode(name, "replace"))
    text = row.decode(name, "replace").strip("\r")
    start = max(0, min(before - _LONGEST // 3, len(text) - _LONGEST))
    return repr(text[start : start + _LONGEST])


def _wide(content: bytes) -> str:
    """The UTF-16 that the bytes are by their mark, or by every other byte being NUL; or ""."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if content.count(0) * 3 < len(content):
        return ""
    return "utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"


def fitting_encodings(content: bytes) -> list[str]:
    """Usual encodings that all bytes decode as, and of which the text looks like language.

    Args:
      content: of a whole file that is not UTF-8.

    Returns:
      names, the best first.
    """
    import charset_normalizer  # only a file that cannot be read needs it

    # What is ASCII tells nothing.
    lines, size = [], 0
    for line in content.splitlines(keepends=True):
        if size < _SAMPLE and not line.isascii():
            lines.append(line)
            size += len(line)
    chaos: dict[str, float] = {}
    for match in charset_normalizer.from_bytes(b"".join(lines), cp_isolation=list(_COMMON)):
        for name in match.could_be_from_charset:
            chaos.setdefault(name, match.percent_chaos)
    fitting = [name for name in _COMMON if name in chaos and _decodes(content, name)]
    return sorted(fitting, key=chaos.__getitem__)


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
