"""Lesions as hypothesis draws them: any values that the table can hold."""

from hypothesis import strategies as st

from converters.lesions import LESION_TYPES, KeySlice, Lesion, Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def decimals(low: float, high: float) -> st.SearchStrategy[float]:
    """Decimal numbers with at most four decimals, as the table prints coordinates."""
    return st.integers(round(low * 10_000), round(high * 10_000)).map(lambda n: n / 10_000)


@st.composite
def key_slices(draw: st.DrawFn) -> KeySlice:
    patient = draw(st.integers(1, 30))
    number = draw(st.integers(1, 1200))
    low, high = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    return KeySlice(
        split=SPLITS[patient % 3],  # a patient is in one split
        patient_index=patient,
        study_index=draw(st.integers(1, 12)),
        series_id=draw(st.integers(1, 3)),
        key_slice_index=number,
        slice_range=(max(0, number - low), number + high),
        spacing_mm_zyx=(draw(decimals(0.25, 5)), *[draw(decimals(0.3, 0.98))] * 2),
        height_px=draw(st.sampled_from([512, 768, 300])),
        width_px=draw(st.sampled_from([512, 768, 300])),
        window_hu=(draw(decimals(-1500, -100)), draw(decimals(0, 600))),
        patient_gender=draw(st.sampled_from(["M", "F", ""])),
        patient_age=draw(st.none() | st.integers(0, 95).map(float)),
    )


@st.composite
def lesions_on(draw: st.DrawFn, key_slice: KeySlice) -> Lesion:
    x1 = draw(decimals(0, key_slice.width_px - 1))
    y1 = draw(decimals(0, key_slice.height_px - 1))
    x2 = draw(decimals(x1 + 0.5, key_slice.width_px))
    y2 = draw(decimals(y1 + 0.5, key_slice.height_px))
    return Lesion(
        key_slice=key_slice,
        box_xyxy=(x1, y1, x2, y2),
        measurement_xy=tuple(draw(decimals(-5, 800)) for _ in range(8)),
        diameters_px=(draw(decimals(0.5, 400)), draw(decimals(0.5, 200))),
        normalized_location=(draw(decimals(0, 1)), draw(decimals(0, 1)), draw(decimals(0, 1))),
        lesion_type=draw(st.sampled_from(sorted(LESION_TYPES))),
        possibly_noisy=draw(st.booleans()),
    )


@st.composite
def lesion_lists(draw: st.DrawFn) -> list[Lesion]:
    """One to eight lesions on distinct places of one to four key slices."""
    slices = draw(
        st.lists(key_slices(), min_size=1, max_size=4, unique_by=lambda key_slice: key_slice.order)
    )
    return [
        lesion
        for key_slice in slices
        for lesion in draw(
            st.lists(
                lesions_on(key_slice), min_size=1, max_size=2, unique_by=lambda le: le.box_xyxy
            )
        )
    ]
