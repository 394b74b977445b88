"""Every instruction set that this processor has gives the right product; a wrong name is refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from perception._native import instruction_set, ops
torch.manual_seed(0)
pairs, rows, taps = 700, 90, 5
ptr = torch.linspace(0, pairs, taps + 1).long()
tap = torch.repeat_interleave(torch.arange(taps), ptr.diff())
out = torch.randint(0, rows, (pairs,))
out = out[torch.argsort(tap * rows + out)]
map = [torch.randint(0, rows, (pairs,)).int(), out.int(), ptr]
worst = 0.0
for dtype, bound in ((torch.float32, 2e-6), (torch.float64, 1e-14), (torch.bfloat16, 6e-3), (torch.float16, 8e-4)):
    for cin, cout, groups in ((1, 1, 1), (3, 17, 1), (16, 32, 1), (32, 48, 2), (7, 130, 1), (24, 24, 24)):
        x = torch.randn(rows, cin).to(dtype)
        g = torch.randn(rows, cout).to(dtype)
        w = torch.randn(taps, cin // groups, cout).to(dtype)
        from perception.sparse.conv import conv_twin, conv_weight_grad_twin
        x64, w64, g64 = x.double(), w.double(), g.double()
        for found, wanted in (
            (ops.conv(x, w, None, map, [], rows, groups, False), conv_twin(x64, w64, None, map, rows, groups)),
            (ops.conv_weight_grad(x, g, map, [], groups, False, False), conv_weight_grad_twin(x64, g64, map, groups)),
        ):
            error = float((found.double() - wanted).abs().max() / wanted.abs().max())
            assert error < bound, (dtype, cin, cout, groups, error)
print(instruction_set())
"""


def run(name: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PERCEPTION_ISA": name}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512", "avx512bf16"])
def test_products_agree_on_every_instruction_set(name: str) -> None:
    done = run(name)
    if "is not available on this processor" in done.stderr:
        pytest.skip(f"this processor has no {name}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name


def test_an_unknown_instruction_set_is_refused() -> None:
    done = run("sse9")
    assert done.returncode != 0
    assert "use avx512bf16, avx512, avx2 or portable" in done.stderr
