"""How tests with Detectron2 itself are marked."""

import pytest

WITH_DETECTRON2 = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("one_thread"),
    # Detectron2's and its friends' own modules, not ours:
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(detectron2|fvcore|iopath|torch)"),
    pytest.mark.filterwarnings("ignore::UserWarning:(detectron2|fvcore|iopath|torch)"),
]
