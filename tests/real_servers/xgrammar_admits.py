"""What xgrammar says of plans: run by an environment that has it, without Planloom.

Reads `{"schema": …, "documents": [text, …]}` and writes a list of true and false. The package
wants torch and transformers, of a gigabyte, for tensors and tokenizers only: empty ones stand in.
"""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import tvm_ffi  # noqa: F401  (it looks for torch itself, and must not find the empty one)


class _Empty(types.ModuleType):
    __path__ = ()  # a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **kwargs: None})


for each in ("torch", "torch.utils", "torch.utils.cpp_extension", "transformers", "triton"):
    sys.modules[each] = _Empty(each)

from xgrammar import Grammar  # noqa: E402
from xgrammar.testing import _is_grammar_accept_string  # noqa: E402

asked = json.load(sys.stdin)
grammar = Grammar.from_json_schema(json.dumps(asked["schema"]), any_whitespace=True)
json.dump([_is_grammar_accept_string(grammar, text) for text in asked["documents"]], sys.stdout)
