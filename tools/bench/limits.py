"""What the machine can do at best: multiply-adds, matrix products, bytes.

On the CPU three probes, all in the very run whose results are set against them:

- fused multiply-adds on registers: twelve independent accumulators as wide as the processor's
  vectors, in a loop that touches no memory, one a thread. Nothing in float32 can be faster.
- matrix products `[4096, K] x [K, K]` by the two libraries inside torch, MKL (`torch.mm`) and oneDNN.
- a copy of 256 MiB, read plus written bytes.

On a GPU two: `torch.mm` of `[8192, 8192]` matrices (in bfloat16 for either 16-bit precision), and a
copy of 1 GiB on the device.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perception.tools.bench.target import FLOAT32, Target
from perception.tools.bench.timing import Effort, clock, interleave

__all__ = ["Limits", "dense_products", "fma_gflops", "measure_limits"]

ACCUMULATORS = 12
"""Two pipes times four cycles of latency are eight; more hide the loop, sixteen registers hold them."""


@dataclass
class Limits:
    """The best that was seen: GFLOP/s in the precision that is measured, and GB/s.

    Attributes:
        fma: multiply-adds on registers, or None where there is no llvmlite to compile the probe, and
            on a GPU.
        products: library to GFLOP/s of its best large product.
        copy: GB/s, read and written bytes together.
    """

    fma: float | None
    products: dict[str, float]
    copy: float
    threads: int
    sizes: tuple[int, ...] = field(default=(256, 512, 1024))

    @property
    def gflops(self) -> float:
        """The matrix-product limit: the highest rate that anything reached."""
        return max([*self.products.values(), self.fma or 0.0])

    def seconds(self, flop: float, bytes_: float) -> tuple[float, str]:
        """The shortest time for so much work (the roofline), and which of the two binds."""
        by_flop, by_bytes = flop / (self.gflops * 1e9), bytes_ / (self.copy * 1e9)
        return (by_flop, "flop") if by_flop >= by_bytes else (by_bytes, "bytes")

    def best_of(self, other: Limits) -> Limits:
        """The higher of two measurements: other processes can only lower a limit."""
        fma = None if self.fma is None or other.fma is None else max(self.fma, other.fma)
        products = {
            name: max(rate, other.products.get(name, 0.0)) for name, rate in self.products.items()
        }
        return Limits(fma, products, max(self.copy, other.copy), self.threads, self.sizes)


def measure_limits(*, quick: bool = False, target: Target = FLOAT32) -> Limits:
    """Measures for as many threads as torch uses now; 1 to 3 seconds, on a GPU less than one."""
    if target.is_cuda:
        return _measure_gpu(target, quick)
    sizes = (256,) if quick else (256, 512, 1024)
    effort = Effort(0.3 if quick else 0.6, 3, 40)
    products: dict[str, float] = {}
    for size in sizes:
        x, w = torch.randn(4096, size), torch.randn(size, size)
        for name, timing in interleave(dense_products(x, w), effort).items():
            rate = 2 * 4096 * size * size / timing.minimum / 1e9
            products[name] = max(products.get(name, 0.0), rate)
    source = torch.ones(1 << 26)
    copy_of = torch.empty_like(source)
    copied = interleave({"copy": lambda: copy_of.copy_(source)}, effort)["copy"]
    threads = torch.get_num_threads()
    copy = 2 * source.nbytes / copied.minimum / 1e9
    return Limits(fma_gflops(threads), products, copy, threads, sizes)


def _measure_gpu(target: Target, quick: bool) -> Limits:
    size = 4096 if quick else 8192
    dtype = torch.float32 if target.dtype == torch.float32 else torch.bfloat16
    a, b = (torch.randn(size, size, device=target.device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.randn(1 << (26 if quick else 28), device=target.device)
    copy = torch.empty_like(source)
    name = f"mm {target.precision if dtype == torch.float32 else 'bfloat16'}"
    cases: dict[str, Callable[[], Tensor]] = {
        name: lambda: torch.mm(a, b, out=product),
        "copy": lambda: copy.copy_(source),
    }
    timings = interleave(cases, Effort(0.3, 5, 20), device=target.device)
    rate = 2 * size**3 / timings[name].minimum / 1e9
    moved = 2 * source.nbytes / timings["copy"].minimum / 1e9
    return Limits(None, {name: rate}, moved, torch.get_num_threads(), (size,))


def dense_products(x: Tensor, w: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The product ``x [M, K] @ w [K, N]`` by each library that this torch has."""
    out = torch.empty(x.shape[0], w.shape[1])
    cases: dict[str, Callable[[], Tensor]] = {"mm": lambda: torch.mm(x, w, out=out)}
    if torch.backends.mkldnn.is_available():
        rows = w.t().contiguous()
        linear = torch.ops.mkldnn._linear_pointwise
        cases["onednn"] = lambda: linear(x, rows, None, "none", [], "")
    return cases


def fma_gflops(threads: int, *, repeats: int = 10) -> float | None:
    """The rate of multiply-adds on registers over `threads` cores; None without llvmlite."""
    try:
        probe, _engine, width = _compile_probe()
    except ImportError:
        return None
    count = 1_000_000
    best = 0.0
    now = clock()
    for _ in range(repeats):
        # ctypes releases the interpreter's lock, so the threads run at once. This thread works too:
        # of other threads the processor time is known only to a tick.
        workers = [threading.Thread(target=probe, args=(count,)) for _ in range(threads - 1)]
        begin = now()
        for worker in workers:
            worker.start()
        probe(count)
        for worker in workers:
            worker.join()
        seconds = now() - begin
        best = max(best, 2 * width * ACCUMULATORS * count * threads / seconds / 1e9)
    return best


def _compile_probe() -> tuple[Callable[[int], float], object, int]:
    """The probe as a function of its loop count, its owner, and the floats in a vector."""
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    host = llvm.get_host_cpu_features()
    width = 16 if host.get("avx512f") else 8 if host.get("fma") else 4
    vector = f"<{width} x float>"
    fma = f"@llvm.fma.v{width}f32"
    names = range(ACCUMULATORS)
    lines = [
        f"declare {vector} {fma}({vector}, {vector}, {vector})",
        "define float @probe(i64 %count) {",
        "entry:",
        f"  %m = insertelement {vector} zeroinitializer, float 0.5, i32 0",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]",
        *(f"  %a{j} = phi {vector} [zeroinitializer, %entry], [%b{j}, %loop]" for j in names),
        *(
            f"  %b{j} = call {vector} {fma}({vector} %a{j}, {vector} %m, {vector} %m)"
            for j in names
        ),
        "  %next = add i64 %i, 1",
        "  %done = icmp eq i64 %next, %count",
        "  br i1 %done, label %exit, label %loop",
        "exit:",
    ]
    total = "%b0"
    for j in names[1:]:
        lines.append(f"  %s{j} = fadd {vector} {total}, %b{j}")
        total = f"%s{j}"
    lines += [f"  %r = extractelement {vector} {total}, i32 0", "  ret float %r", "}"]
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=host.flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly("\n".join(lines)), machine)
    engine.finalize_object()
    address = engine.get_function_address("probe")
    return ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(address), engine, width
