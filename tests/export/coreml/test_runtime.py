"""On a Mac: Core ML's own runtime against the interpreter, on the same package."""

import sys

import numpy as np
import pytest

from mlx_ssd.export.coreml.contract import IDS, LOGITS, MASK


@pytest.mark.mac
@pytest.mark.skipif(sys.platform != "darwin", reason="Core ML's runtime is in macOS")
@pytest.mark.parametrize("precision", ["float16", "int8", "int4", "adapters"])
def test_core_ml_computes_what_the_interpreter_does(made, precision):
    from mlx_ssd.export import coreml
    from mlx_ssd.export.coreml.tools import coremltools
    from mlx_ssd.export.reference import reference_of
    from mlx_ssd.torch_ref.qwen3 import causal_mask

    ct = coremltools()
    source, folder = made(precision)
    text = reference_of(source).texts[0]
    # The GPU: on the Neural Engine shapes that vary may not run.
    model = ct.models.MLModel(str(folder / coreml.contract.PACKAGE), compute_units=ct.ComputeUnit.CPU_AND_GPU)
    state, found, end = model.make_state(), [], 0
    ids = [*text.prompt_ids, *text.completion_ids[:-1]]
    for count in (len(text.prompt_ids), *[1] * (len(text.completion_ids) - 1)):
        end += count
        inputs = {
            IDS: np.array([ids[end - count : end]], dtype=np.int32),
            MASK: causal_mask(count, end).numpy().astype(np.float16),
        }
        found.append(model.predict(inputs, state=state)[LOGITS][0, -1].astype(np.float32))
    expected = coreml.load(source, folder, precision).logits(text)
    assert np.abs(np.stack(found) - expected).max() < 0.1
