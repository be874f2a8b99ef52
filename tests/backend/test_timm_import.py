"""Importing timm and torchvision loads no compiler, and what was put off works when it is asked for."""

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


def run(code):
    done = subprocess.run([sys.executable, "-c", CODE + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.journey
def test_the_compiler_is_loaded_only_where_something_is_trained_or_compiled():
    run("torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)); assert 'torch._dynamo' in sys.modules")


@pytest.mark.journey
def test_grammars_that_no_notebook_has_are_not_compiled_by_what_draws_and_reports():
    run(
        "import importlib.util\n"
        "assert importlib.util.find_spec('rfc3987_syntax') and 'jsonschema' not in sys.modules\n"
        "import osdtw_lib.explorer.widgets, osdtw_lib.report.notebooks, osdtw_lib.report.page, papermill\n"
        "assert 'nbformat' in sys.modules and not {'rfc3987_syntax', 'lark'} & set(sys.modules)\n"
    )


@pytest.mark.journey
def test_what_was_put_off_answers_as_it_would_have():
    run(
        "from torchvision.ops.roi_align import is_compile_supported\n"
        "asked = is_compile_supported('cpu')\n"
        "from torch._dynamo.utils import is_compile_supported as real\n"
        "assert asked == real('cpu')\n"
        "network = timm.create_model('naflexvit_base_patch16_gap', embed_dim=8, depth=1, num_heads=2, num_classes=3)\n"
        "assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 3)\n"
    )
