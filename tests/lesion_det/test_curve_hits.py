"""The bits of an evaluation come back as they went, or not at all."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesion_det.curve_hits import hits_to_text, text_to_hits


@given(hnp.arrays(np.bool_, st.integers(0, 70)))
def test_every_bit_comes_back(hits: np.ndarray) -> None:
    np.testing.assert_array_equal(text_to_hits(hits_to_text(hits), len(hits)), hits)


@pytest.mark.parametrize("text", ["!", "AAAA", "", "A!AA="])
def test_bits_of_other_lesions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hits"):
        text_to_hits(text, 9)
