"""The same mathematics in PyTorch: what the MLX figures are compared with, and what exporters convert."""

import logging
import re

# Transformers and peft import torchao where it is installed; what it says then, nobody can act on.
NOISE = {
    "torchao": re.compile("Failed to load .*"),  # kernels for other machines
    "torch.utils._pytree": re.compile(r".* is an Enum subclass and is now natively supported by torch\.compile"),
}
for _name, _known in NOISE.items():
    logging.getLogger(_name).addFilter(lambda record, known=_known: not known.match(record.getMessage()))
