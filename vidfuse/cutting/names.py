"""Names of files and folders that every system takes, for labels and videos called anything."""

from __future__ import annotations

import re
import unicodedata

from vidfuse.data.files import is_ignored

LONGEST = 100  # bytes of a name's part: with times, suffix and a temporary mark it stays below 255
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows


def safe_name(text: str) -> str:
    """A name like the text that is one on Windows, macOS and Linux, and that no listing hides."""
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).strip(" ").rstrip(".")
    while len(name.encode()) > LONGEST:
        name = name[:-1]
    name = name.rstrip(" .")
    if not name or is_ignored(name) or _RESERVED.fullmatch(name):
        return f"_{name}"
    return name


class Names:
    """Names of several things, of which no two are the same, on disks that ignore case either.

    Args:
        known: Things that have names already, and these.

    Attributes:
        alike: Things that had to get another name, because of the one before them.
    """

    def __init__(self, known: dict[str, str]) -> None:
        self._names = dict(known)
        self._owners = {name.casefold(): thing for thing, name in known.items()}
        self.alike: dict[str, str] = {}

    def of(self, thing: str, text: str) -> str:
        """The name of a thing: always the same, made from the text at first."""
        if thing in self._names:
            return self._names[thing]
        plain = name = safe_name(text)
        count = 1
        while name.casefold() in self._owners:
            count += 1
            name = f"{plain} {count}"
        if count > 1:
            self.alike[thing] = self._owners[plain.casefold()]
        self._names[thing] = name
        self._owners[name.casefold()] = thing
        return name
