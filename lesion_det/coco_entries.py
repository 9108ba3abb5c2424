"""Our COCO JSON as it stands in the file: what an entry may say, and what contradicts another.

Shapes:
    bbox is x, y, width, height in pixels of the PNG, 0-based.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

from converters.defects import shown
from lesion_det.image_names import one_name, require_inside, slice_key
from ubr_pretrain.reading_rules import MAX_SIDE_PX, MAX_SPACING_MM

LESION_CATEGORY = 1
"""The one category; background is not a category in COCO."""

EDGE_TOLERANCE_PX = 1e-3
"""x + w of a box clipped to the image may exceed its width by rounding."""

MAX_WHOLE = 2**63 - 1
"""JSON has larger numbers, an array of int64 has not."""

AUDIT = "audit_coco.py lists all of them"

_Id = Annotated[PositiveInt, Field(le=MAX_WHOLE)]
_Index = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
_SidePx = Annotated[int, Field(ge=1, le=MAX_SIDE_PX)]
_SpacingMm = Annotated[float, Field(gt=0, le=MAX_SPACING_MM, allow_inf_nan=False)]
_DiameterPx = Annotated[float, Field(ge=0, le=2 * MAX_SIDE_PX, allow_inf_nan=False)]


def _rising(window_hu: tuple[float, float]) -> tuple[float, float]:
    if not window_hu[0] < window_hu[1]:
        raise ValueError("lower end, upper end: the window must have a width")
    return window_hu


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class CocoImage(_Entry):
    """A key slice; where in DeepLesion it is from stands beside COCO's keys."""

    id: _Id
    file_name: Annotated[str, Field(min_length=1), AfterValidator(require_inside)]
    height: _SidePx
    width: _SidePx
    patient_index: _Index
    study_index: _Index
    series_id: _Index
    key_slice_index: _Index
    slice_range: tuple[_Index, _Index]
    spacing_mm_zyx: tuple[_SpacingMm, _SpacingMm, _SpacingMm]
    window_hu: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_rising)] | None = None


class CocoAnnotation(_Entry):
    """A lesion, and what was measured of it."""

    id: _Id
    image_id: int
    category_id: int
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    iscrowd: int = 0
    lesion_type: Literal[-1, 1, 2, 3, 4, 5, 6, 7, 8] = -1
    diameters_px: tuple[_DiameterPx, _DiameterPx]
    possibly_noisy: bool = False


class CocoCategory(_Entry):
    """A class; there is but one."""

    id: int


class CocoFile(_Entry):
    """A whole file; ``info`` is anybody's, and the counts in it are held against the lists."""

    info: Any = None
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


def contradictions(coco: CocoFile) -> Iterator[str]:
    """Yield, entry and rule named, what would falsify a metric; nothing of a sound file."""
    if not coco.images:
        yield "E-NODATA  holds no images"
    yield from _repeated("image id", (image.id for image in coco.images))
    yield from _repeated_images(coco.images)
    yield from _repeated("annotation id", (a.id for a in coco.annotations))
    if sorted(category.id for category in coco.categories) != [LESION_CATEGORY]:
        ids = [category.id for category in coco.categories]
        yield f"categories {ids}, expected one, id {LESION_CATEGORY} (lesion)"
    for image in coco.images:
        yield from _image_problems(image)
    sizes = {image.id: (image.width, image.height) for image in coco.images}
    lesions: dict[tuple[int, tuple[float, ...]], int] = {}
    for annotation in sorted(coco.annotations, key=lambda a: a.id):
        if annotation.image_id not in sizes:
            yield (
                f"annotation {annotation.id} is of image {annotation.image_id}, which is not listed"
            )
            continue
        for problem in _annotation_problems(annotation, *sizes[annotation.image_id]):
            yield f"annotation {annotation.id}: {problem}"
        lesion = (annotation.image_id, annotation.bbox)
        if (first := lesions.setdefault(lesion, annotation.id)) != annotation.id:
            yield (
                f"annotations {first} and {annotation.id} are one lesion: image "
                f"{annotation.image_id}, bbox {list(annotation.bbox)}; {AUDIT}"
            )
    yield from _other_counts(coco)


def _repeated(what: str, values: Iterable[int]) -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            yield f"{what} {value} occurs more than once"


def _repeated_images(images: Iterable[CocoImage]) -> Iterator[str]:
    """Yield images that stand in the file again, under the same name or another spelling of it."""
    first_with: dict[str, str] = {}
    for image in images:
        one, name = one_name(image.file_name), image.file_name
        if (first := first_with.get(one)) is not None:
            spelt = "" if first == name else f": {first} is the same slice"
            yield f"file_name {name} occurs more than once{spelt}"
        first_with[one] = name


def _other_counts(coco: CocoFile) -> Iterator[str]:
    info = coco.info if isinstance(coco.info, dict) else {}
    for key, entries in (("num_images", coco.images), ("num_annotations", coco.annotations)):
        if info.get(key, len(entries)) != len(entries):
            yield (
                f"info.{key} is {shown(info[key])}, but {len(entries)} are listed: not the whole "
                "file, or changed; whoever meant that corrects the number"
            )


def _image_problems(image: CocoImage) -> Iterator[str]:
    """Yield where a name of DeepLesion's form, or the range of slices, denies an index."""
    where = f"image {image.id} ({image.file_name})"
    said = (image.patient_index, image.study_index, image.series_id, image.key_slice_index)
    names = ("patient_index", "study_index", "series_id", "key_slice_index")
    for name, value, named in zip(names, said, slice_key(image.file_name) or said, strict=True):
        if value != named:
            yield f"{where}: {name} {value}, its file_name says {named}"
    first, last = image.slice_range
    if not first <= image.key_slice_index <= last:
        yield f"{where}: slice_range {[first, last]} lacks the key slice {image.key_slice_index}"


def _annotation_problems(
    annotation: CocoAnnotation, width_px: int, height_px: int
) -> Iterator[str]:
    x, y, w, h = annotation.bbox
    if annotation.category_id != LESION_CATEGORY:
        yield f"category {annotation.category_id} is unknown"
    if annotation.iscrowd:
        yield f"iscrowd {annotation.iscrowd} has no meaning for lesions"
    slack = EDGE_TOLERANCE_PX
    if not (w > 0 and h > 0):
        yield f"bbox {list(annotation.bbox)} has no area"
    elif x < -slack or y < -slack or x + w > width_px + slack or y + h > height_px + slack:
        yield f"bbox {list(annotation.bbox)} leaves its {width_px}x{height_px} px image"
