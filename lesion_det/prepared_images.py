"""The inputs of key slices: decoded when they are asked for, or before, into a cache on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from lesion_det.boxes import Frame
from lesion_det.det_config import InputConfig
from lesion_det.ground_truth import ImageRecord
from lesion_det.input_cache import THREADS, Entry, InputCache, Writer
from lesion_det.slices import PreparedImage, prepare_image, source_files
from ubr_pretrain.journal import ProgressLine
from ubr_pretrain.runtime import to_json
from ubr_pretrain.work_ahead import worked_ahead

RECIPE = 1
"""To be raised when ``prepare_image`` makes other pixels of the same files."""

SAMPLE = 16
"""Inputs from which the room for all is estimated."""


class PreparedImages:
    """The inputs of one folder of slices.

    Args:
        images: the folder ``Images_png``.
        config: how inputs are made.
        cache: where ``build`` keeps them; None decodes every time.
    """

    def __init__(self, images: Path, config: InputConfig, cache: Path | None = None) -> None:
        self.images, self.config = images, config
        self._cache = InputCache(cache) if cache else None
        self._keys: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, record: ImageRecord) -> PreparedImage:
        """Return the input of one key slice, from the cache where ``build`` has put it there.

        Raises:
            ValueError: a slice cannot be read.
        """
        entry = self._entries.get(self._keys.get(_identity(record), ""))
        if entry is None or self._cache is None:
            return prepare_image(self.images, record, self.config)
        return self._cache.read(entry)

    def known_frame(self, record: ImageRecord) -> Frame | None:
        """Return where the input of a key slice lies in it, if ``build`` has made that input."""
        entry = self._entries.get(self._keys.get(_identity(record), ""))
        return None if entry is None else entry.frame

    def build(
        self, records: Iterable[ImageRecord], stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Decode what the cache does not hold whole; without a cache there is nothing to do.

        Args:
            records: the images that will be asked for.
            stop: ends the build where it says True; the rest is decoded when it is asked for.

        Raises:
            ValueError: slices that cannot be read (after all others: the first is named); a disk
                that is too small or cannot be written.
        """
        if self._cache is None:
            return
        by_key = {self._key(record): record for record in records}
        self._keys = {_identity(record): key for key, record in by_key.items()}
        self._entries = self._cache.whole(by_key)
        if missing := by_key.keys() - self._entries.keys():
            with self._cache.writer(stop) as writer:
                if writer is None:
                    return
                self._entries |= self._cache.whole(missing)  # others may have written meanwhile
                if lacking := {k: r for k, r in by_key.items() if k not in self._entries}:
                    self._decode(lacking, self._cache, writer, stop)

    def _decode(
        self,
        records: Mapping[str, ImageRecord],
        cache: InputCache,
        writer: Writer,
        stop: Callable[[], bool],
    ) -> None:
        """Decode with several threads and append, in an order whose beginning is a sample."""

        def work(key: str) -> tuple[str, PreparedImage | ValueError]:
            try:
                return key, prepare_image(self.images, records[key], self.config)
            except ValueError as error:
                return key, error

        names = list(records)
        stride = max(1, len(names) // SAMPLE)
        keys = [key for start in range(stride) for key in names[start::stride]]
        faults: list[ValueError] = []
        num_bytes = 0
        progress = ProgressLine(len(keys))
        outcomes = worked_ahead(work, keys, THREADS)
        with closing(progress), closing(outcomes):
            for count, (key, outcome) in enumerate(outcomes, start=1):
                if isinstance(outcome, ValueError):
                    faults.append(outcome)
                else:
                    self._entries[key] = writer.append(key, outcome)
                    num_bytes += self._entries[key].num_bytes
                if count == SAMPLE:
                    cache.require_room(num_bytes / count * (len(keys) - count))
                progress.show(count, f"inputs decoded into {cache.folder}")
                if stop():
                    break
        cache.remap()
        if faults:
            others = f" (and {len(faults) - 1} more key slices)" if faults[1:] else ""
            raise ValueError(f"{faults[0]}{others}")

    def _key(self, record: ImageRecord) -> str:
        """Return a hash of all that an input is made from."""
        files = [
            (file.name, status.st_size, status.st_mtime_ns)
            for file in source_files(self.images, record, self.config)
            for status in [file.stat()]
        ]
        text = to_json([RECIPE, self.config.model_dump(mode="json"), _identity(record), files])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _identity(record: ImageRecord) -> str:
    """Return all of a record that an input depends on."""
    size = f"{record.height_px}x{record.width_px}"
    return f"{record.file_name} {record.key_slice_index} {size} {record.spacing_mm_zyx}"
