"""Images by their content: what a transcript's references mean, in memory or in a folder."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from agentrl.core.errors import ContractError
from agentrl.core.types import Image

DIGEST_BYTES: Final = 32
"""Length of a SHA-256."""

_KEPT = 64
_SUFFIXES = {"image/jpeg": ".jpg", "image/svg+xml": ".svg"}


class ImageStore:
    """Images under the SHA-256 of their bytes.

    With a `folder` each is written there once, as `SHA256.png` (or what its media type ends in),
    and only the last few are held in memory; without one all of them are, until the store goes.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is made when the first image comes."""
        self._folder = folder
        self._images: OrderedDict[bytes, Image] = OrderedDict()

    def put(self, image: Image) -> bytes:
        """Keep `image`; returns its digest."""
        digest = hashlib.sha256(image.data).digest()
        if digest not in self._images and self._folder is not None:
            path = self.path(digest, image.media_type)
            if not path.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                unfinished.write_bytes(image.data)
                unfinished.replace(path)
        self._hold(digest, image)
        return digest

    def get(self, digest: bytes, media_type: str) -> Image:
        """The image of that digest.

        Raises:
            ContractError: nobody has put it here.
        """
        image = self._images.get(digest)
        if image is None or image.media_type != media_type:
            image = Image(media_type, self._read(digest, media_type))
        self._hold(digest, image)
        return image

    def path(self, digest: bytes, media_type: str) -> Path:
        """Where the image lies; only with a folder."""
        assert self._folder is not None
        bare = "".join(c for c in media_type.rpartition("/")[2] if c.isalnum()) or "bin"
        return self._folder / f"{digest.hex()}{_SUFFIXES.get(media_type, f'.{bare}')}"

    def _hold(self, digest: bytes, image: Image) -> None:
        self._images[digest] = image
        self._images.move_to_end(digest)
        if self._folder is not None and len(self._images) > _KEPT:
            self._images.popitem(last=False)

    def _read(self, digest: bytes, media_type: str) -> bytes:
        held = self._images.get(digest)
        if held is not None:
            return held.data
        try:
            if self._folder is not None:
                return self.path(digest, media_type).read_bytes()
        except FileNotFoundError:
            pass
        raise ContractError(f"image {digest.hex()} is referred to, and nobody has stored it")
