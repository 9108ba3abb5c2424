"""Records <-> COCO JSON, without loss.

Boxes are x, y, width, height in pixels from 0; ids count from 1 (pycocotools never matches an
annotation of id 0). Beyond COCO's keys, an image says where in DeepLesion it comes from and an
annotation what was measured. One image or annotation stands on one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import FiniteFloat, ValidationError

from converters.distinct_keys import distinct_keys
from converters.lesions import DECIMALS, DeepLesionRefused, KeySlice, Lesion, Split
from ubr_pretrain.config import Config, first_problem
from ubr_pretrain.runtime import to_json
from ubr_pretrain.whole_file import write_atomically

LESION = 1
"""The id of the one category."""


class CocoInfo(Config):
    """What a file holds and how its numbers are to be read; ``source`` is a name, not a path."""

    description: str
    split: Split
    source: str
    source_sha256: str
    images_checked: bool
    num_images: int
    num_annotations: int


class CocoImage(Config):
    """One key slice."""

    id: int
    file_name: str
    height: int
    width: int
    patient_index: int
    study_index: int
    series_id: int
    key_slice_index: int
    slice_range: tuple[int, int]
    spacing_mm_zyx: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    window_hu: tuple[FiniteFloat, FiniteFloat]
    patient_gender: str
    patient_age: FiniteFloat | None


class CocoAnnotation(Config):
    """One lesion."""

    id: int
    image_id: int
    category_id: int
    bbox: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
    area: FiniteFloat
    iscrowd: int
    lesion_type: int
    diameters_px: tuple[FiniteFloat, FiniteFloat]
    possibly_noisy: bool
    measurement_coordinates: tuple[FiniteFloat, ...]
    normalized_location: tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class CocoCategory(Config):
    """A class that a detector tells from the background."""

    id: int
    name: str


class Coco(Config):
    """A COCO file of one split."""

    info: CocoInfo
    images: tuple[CocoImage, ...]
    annotations: tuple[CocoAnnotation, ...]
    categories: tuple[CocoCategory, ...] = (CocoCategory(id=LESION, name="lesion"),)


def lesions_to_coco(
    lesions: Iterable[Lesion],
    split: Split,
    source: str,
    source_sha256: str,
    file_names: Mapping[KeySlice, str] | None = None,
) -> Coco:
    """Return the COCO file of one split; images and annotations keep the order of ``lesions``.

    Args:
        lesions: of any split; those of ``split`` are taken.
        split: the official split.
        source: name of the table.
        source_sha256: of the table's bytes.
        file_names: the PNG found for every key slice; None: the official name, unchecked.
    """
    images: dict[KeySlice, CocoImage] = {}
    annotations: list[CocoAnnotation] = []
    for lesion in (each for each in lesions if each.key_slice.split == split):
        key_slice = lesion.key_slice
        if key_slice not in images:
            name = file_names[key_slice] if file_names is not None else key_slice.file_name
            images[key_slice] = _image(key_slice, name, len(images) + 1)
        image_id = images[key_slice].id
        annotations.append(_annotation(lesion, len(annotations) + 1, image_id))
    info = CocoInfo(
        description="DeepLesion key slices; boxes x, y, width, height in pixels from 0 "
        "(the table's value - 1), width = x2 - x1",
        split=split,
        source=source,
        source_sha256=source_sha256,
        images_checked=file_names is not None,
        num_images=len(images),
        num_annotations=len(annotations),
    )
    return Coco(info=info, images=tuple(images.values()), annotations=tuple(annotations))


def coco_to_lesions(coco: Coco) -> list[Lesion]:
    """Return the records from which ``lesions_to_coco`` makes an equal file.

    Raises:
        DeepLesionRefused: an annotation of an image that is not listed.
    """
    slices = {image.id: _key_slice(image, coco.info.split) for image in coco.images}
    for annotation in coco.annotations:
        if annotation.image_id not in slices:
            raise DeepLesionRefused(
                f"annotation {annotation.id}: image {annotation.image_id} is not listed"
            )
    return [_lesion(annotation, slices[annotation.image_id]) for annotation in coco.annotations]


def write_coco(path: Path, coco: Coco) -> None:
    """Write the JSON, one image or annotation a line, atomically."""
    blocks = [f'"info": {to_json(coco.info.model_dump(mode="json"))}']
    for name in ("images", "annotations", "categories"):
        entries: tuple[Config, ...] = getattr(coco, name)
        lines = ",\n".join(to_json(entry.model_dump(mode="json")) for entry in entries)
        blocks.append(f'"{name}": [\n{lines}\n]')
    with write_atomically(path, "w") as file:
        file.write("{" + ",\n".join(blocks) + "}\n")


def read_coco(path: Path) -> Coco:
    """Read what ``write_coco`` wrote.

    Raises:
        DeepLesionRefused: not JSON, or a key missing, unknown or of another type.
    """
    try:
        return Coco.model_validate(
            json.loads(path.read_text("utf-8"), object_pairs_hook=distinct_keys)
        )
    except ValidationError as error:
        raise DeepLesionRefused(f"{path}: {first_problem(error)}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DeepLesionRefused(f"{path}: not a JSON file ({error})") from error


def _image(key_slice: KeySlice, file_name: str, image_id: int) -> CocoImage:
    return CocoImage(
        id=image_id,
        file_name=file_name,
        height=key_slice.height_px,
        width=key_slice.width_px,
        patient_index=key_slice.patient_index,
        study_index=key_slice.study_index,
        series_id=key_slice.series_id,
        key_slice_index=key_slice.key_slice_index,
        slice_range=key_slice.slice_range,
        spacing_mm_zyx=key_slice.spacing_mm_zyx,
        window_hu=key_slice.window_hu,
        patient_gender=key_slice.patient_gender,
        patient_age=key_slice.patient_age,
    )


def _key_slice(image: CocoImage, split: Split) -> KeySlice:
    return KeySlice(
        split=split,
        patient_index=image.patient_index,
        study_index=image.study_index,
        series_id=image.series_id,
        key_slice_index=image.key_slice_index,
        slice_range=image.slice_range,
        spacing_mm_zyx=image.spacing_mm_zyx,
        height_px=image.height,
        width_px=image.width,
        window_hu=image.window_hu,
        patient_gender=image.patient_gender,
        patient_age=image.patient_age,
    )


def _annotation(lesion: Lesion, annotation_id: int, image_id: int) -> CocoAnnotation:
    x1, y1, x2, y2 = lesion.box_xyxy
    width, height = round(x2 - x1, DECIMALS), round(y2 - y1, DECIMALS)
    return CocoAnnotation(
        id=annotation_id,
        image_id=image_id,
        category_id=LESION,
        bbox=(x1, y1, width, height),
        area=width * height,
        iscrowd=0,
        lesion_type=lesion.lesion_type,
        diameters_px=lesion.diameters_px,
        possibly_noisy=lesion.possibly_noisy,
        measurement_coordinates=lesion.measurement_xy,
        normalized_location=lesion.normalized_location,
    )


def _lesion(annotation: CocoAnnotation, key_slice: KeySlice) -> Lesion:
    x, y, width, height = annotation.bbox
    return Lesion(
        key_slice=key_slice,
        box_xyxy=(x, y, round(x + width, DECIMALS), round(y + height, DECIMALS)),
        measurement_xy=annotation.measurement_coordinates,
        diameters_px=annotation.diameters_px,
        normalized_location=annotation.normalized_location,
        lesion_type=annotation.lesion_type,
        possibly_noisy=annotation.possibly_noisy,
    )
