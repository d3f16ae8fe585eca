"""The model that a Hugging Face directory describes, of the installed transformers library's own classes.

Only ``config.json`` says what is built, and it was read as plain data: no code of the directory is imported,
nothing is looked up on the network, and the weights come from elsewhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from landscape.errors import ConfigurationError
from landscape.project.text import nearest, shown

if TYPE_CHECKING:
    from torch import nn

    from landscape.checkpoint import Checkpoint

__all__ = ["loss_for", "make_pretrained"]

#: What the library builds of a configuration, and its table from the configuration's class to the model's.
_BUILDERS = {
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "AutoModel": "MODEL_MAPPING",
}
#: What a file may not choose: whose code does the arithmetic (some would be fetched), and what comes out.
_OURS = re.compile(
    "_?(attn|experts)_implementation.*|_name_or_path|(torch_)?dtype|use_cache|return_dict|"
    "output_(attentions|hidden_states)"
)


def loss_for(architecture: str) -> str | None:
    """The loss that a class of model is trained with, as its name tells; None if it does not."""
    if re.search("ForCausalLM|LMHeadModel", architecture):
        return "causal_lm"
    return "cross_entropy" if re.search("Classification|MaskedLM", architecture) else None


def make_pretrained(checkpoint: Checkpoint) -> tuple[nn.Module, tuple[str, ...]]:
    """The model that ``config.json`` describes, with fresh weights, and what to tell the user.

    It is in float32, or in float64 if the weights are; its attention is one that can be differentiated twice.

    Raises:
        ConfigurationError: transformers is not installed, the directory wants code of its own or quantized
            weights, or describes no model that the library knows.
    """
    import torch

    from landscape.machine import brief, preserved_randomness

    name = _architecture(checkpoint)
    library = _library(checkpoint)
    try:
        with preserved_randomness(), _offline():
            config, builder, kind = _found(library, checkpoint, name)
            attention = "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
            model: nn.Module = builder.from_config(
                config, attn_implementation=attention, trust_remote_code=False
            )
    except ConfigurationError:
        raise
    except Exception as error:  # whatever the library makes of a configuration that does not fit it
        raise ConfigurationError(
            f"{name} cannot be built from the config.json of {shown(checkpoint.path)}",
            found=shown(brief(error)),
            do="look whether transformers itself opens it (another version?), or give --model",
        ) from error
    dtypes = {tensor.dtype for tensor in checkpoint.state.values() if tensor.is_floating_point()}
    notes = [f"model {name} built from config.json by transformers {shown(library.__version__)}"]
    if torch.float64 in dtypes:
        model = model.double()
    elif half := sorted(str(d).removeprefix("torch.") for d in dtypes - {torch.float32}):
        notes.append(f"weights in {', '.join(half)} are raised to float32; the rounding they have had stays")
    return model, tuple(notes)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The hub out of reach: some models look for kernels there, or for what ``config.json`` names."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _architecture(checkpoint: Checkpoint) -> str:
    """The class that the configuration names, and nothing in it that would have to be refused."""
    where = f"{shown(checkpoint.path)}/config.json"
    keys = set(_keys(checkpoint.config))
    if "auto_map" in keys:
        raise ConfigurationError(
            f"{where} asks for code of its own (auto_map), which is not run",
            do="give --model, a factory; or take auto_map out, if transformers itself has the class",
        )
    if "quantization_config" in keys:
        raise ConfigurationError(
            f"{where} describes quantized weights, which have no derivatives",
            do="take the directory of the weights before quantization",
        )
    name = checkpoint.metadata.get("architecture")
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(
            f"{where} names no architecture to build",
            found=", ".join(sorted(map(shown, checkpoint.config))[:8]) or "nothing in it",
            do="give --model, or save the model again with model.save_pretrained(folder)",
        )
    return name


def _keys(value: Any) -> Iterator[str]:
    """All keys of mappings in mappings that say something."""
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        if inner is not None:
            yield key
        yield from _keys(inner)


def _library(checkpoint: Checkpoint) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigurationError(
            f"the model of {shown(checkpoint.path)} is built by transformers, which cannot be imported",
            found=shown(error),
            do="pip install 'landscape-diagnostics[transformers]', or give --model, a factory of yours",
        ) from error
    return transformers


def _found(library: Any, checkpoint: Checkpoint, name: str) -> tuple[Any, Any, Any]:
    """(the configuration as an object of the library, what builds the class ``name`` of it, that class)."""
    kind = checkpoint.metadata.get("model_type")
    known = library.CONFIG_MAPPING
    if not isinstance(kind, str) or kind not in known:
        raise ConfigurationError(
            f"transformers {shown(library.__version__)} knows no model_type {shown(repr(kind))}",
            do=nearest(str(kind), [one for one in known if one[:2] == str(kind)[:2]]) or "give --model",
        )
    config = known[kind].from_dict(_own(checkpoint.config))
    for builder, table in _BUILDERS.items():
        found = getattr(library, table).get(type(config), ())
        for one in found if isinstance(found, tuple | list) else (found,):
            if one.__name__ == name and one.__module__.startswith("transformers."):
                return config, getattr(library, builder), one
    raise ConfigurationError(
        f"{name} is none of the models that are built from a directory",
        found=f"model_type {shown(kind)}",
        do="language models and classifiers are; for others give --model, a factory of yours",
    )


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what is chosen here: float32, one output by name, no cache."""
    kept = {
        key: _own(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if not _OURS.fullmatch(key)
    }
    return {**kept, "use_cache": False, "dtype": "float32"} if "model_type" in config else kept
