"""Importing what this project stands on loads no compiler and no grammars, and what was put off works when it is asked for."""

import subprocess
import sys

import pytest

CODE = """
import sys, torch
disable = torch.compiler.disable
from osdtw_lib.backend.timm_import import timm, torchvision
assert not {name for name in sys.modules if name.startswith("torch._dynamo")}, "the compiler is loaded"
assert torch.compiler.disable is disable
"""


@pytest.mark.journey
def test_what_importing_loads_and_what_was_put_off():
    code = [
        CODE,
        "import importlib.util, osdtw_lib.explorer.widgets, osdtw_lib.report.notebooks, osdtw_lib.report.page, papermill",
        "assert importlib.util.find_spec('rfc3987_syntax') and 'nbformat' in sys.modules",
        "assert not {'rfc3987_syntax', 'lark'} & set(sys.modules), 'grammars of addresses are compiled'",
        "assert 'torch._dynamo' not in sys.modules",
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item() == 2 and 'torch._dynamo' in sys.modules",
        "from torchvision.ops.roi_align import is_compile_supported",
        "asked = is_compile_supported('cpu')",
        "from torch._dynamo.utils import is_compile_supported as real",
        "assert asked == real('cpu')",
        "network = timm.create_model('naflexvit_base_patch16_gap', embed_dim=8, depth=1, num_heads=2, num_classes=3)",
        "assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
