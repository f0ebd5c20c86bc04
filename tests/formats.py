"""Every LoRA format that ComfyUI reads, seeded, on given layers.

Each has its float64 formula f(W0) - W0. The formulas are written from the methods' papers and
LyCORIS, not from ComfyUI's code.
"""

import torch

Shapes = dict[str, torch.Size]


class Format:
    """One module of a format.

    It has its tensors under ComfyUI's generic names, and its change of a weight in float64.
    """

    rank = 4
    alpha: float | None = None

    def __init__(self, shapes: Shapes, seed: int, size: float = 0.2):
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.parts = {name: self.make(shape) for name, shape in shapes.items()}

    def randn(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def make(self, shape: torch.Size) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def change(self, parts: dict[str, torch.Tensor], w0: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        """The file's tensors, with the alpha where the format has one."""
        named = {
            f"diffusion_model.{name}.{key}": part
            for name, parts in self.parts.items()
            for key, part in parts.items()
        }
        if self.alpha is not None:
            named |= {
                f"diffusion_model.{name}.alpha": torch.tensor(self.alpha) for name in self.parts
            }
        return named

    def delta(self, name: str, w0: torch.Tensor) -> torch.Tensor:
        """f(W0) - W0 in float64."""
        return self.change(
            {key: part.double() for key, part in self.parts[name].items()}, w0.double()
        )

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Lora(Format):
    """W0 + alpha/r * B A (Hu et al. 2021)."""

    alpha = 2.0

    def make(self, shape):
        fan_in = shape[1:].numel()
        return {
            "lora_up.weight": self.randn(
                shape[0], self.rank, *[1] * (len(shape) - 2), scale=self.size
            ),
            "lora_down.weight": self.randn(self.rank, *shape[1:], scale=fan_in**-0.5),
        }

    def change(self, parts, w0):
        product = parts["lora_up.weight"].flatten(1) @ parts["lora_down.weight"].flatten(1)
        return self.scale * product.reshape(w0.shape)


class Dora(Lora):
    """m * (W0 + s B A) / |W0| by rows.

    This is weight decomposition on the output axis, as ComfyUI normalises it.
    """

    def make(self, shape):
        magnitude = 1.0 + self.randn(shape[0], *[1] * (len(shape) - 1), scale=0.2)
        return super().make(shape) | {"dora_scale": magnitude}

    def change(self, parts, w0):
        moved = w0 + super().change(parts, w0)
        norm = (
            w0.flatten(1).norm(dim=1).reshape(-1, *[1] * (w0.ndim - 1))
            + torch.finfo(torch.float32).eps
        )
        return moved * parts["dora_scale"] / norm - w0


class Loha(Format):
    """alpha/r * (w1_a w1_b) * (w2_a w2_b), elementwise (LyCORIS, FedPara)."""

    alpha = 4.0

    def make(self, shape):
        fan_in = shape[1:].numel()
        return {
            f"hada_{half}_{side}": self.randn(*size, scale=scale)
            for half, scale in (("w1", self.size), ("w2", fan_in**-0.5))
            for side, size in (("a", (shape[0], self.rank)), ("b", (self.rank, fan_in)))
        }

    def change(self, parts, w0):
        first, second = (parts[f"hada_{half}_a"] @ parts[f"hada_{half}_b"] for half in ("w1", "w2"))
        return self.scale * (first * second).reshape(w0.shape)


class Lokr(Format):
    """The Kronecker product of w1 and w2 = w2_a w2_b (LyCORIS)."""

    alpha = 4.0

    def make(self, shape):
        fan_in = shape[1:].numel()
        return {
            "lokr_w1": self.randn(4, 4, scale=self.size),
            "lokr_w2_a": self.randn(shape[0] // 4, self.rank, scale=0.5),
            "lokr_w2_b": self.randn(self.rank, fan_in // 4, scale=fan_in**-0.5),
        }

    def change(self, parts, w0):
        return self.scale * torch.kron(
            parts["lokr_w1"], parts["lokr_w2_a"] @ parts["lokr_w2_b"]
        ).reshape(w0.shape)


class Oft(Format):
    """(R - I) W0 with R block-diagonal, R = (I + Q)(I - Q)^-1, Q skew-symmetric (Qiu et al. 2023).

    R acts as R^T here.
    """

    blocks = 8

    def make(self, shape):
        side = shape[0] // self.blocks
        return {"oft_blocks": self.randn(self.blocks, side, side, scale=self.size / side**0.5)}

    def change(self, parts, w0):
        skew = parts["oft_blocks"] - parts["oft_blocks"].transpose(1, 2)
        eye = torch.eye(skew.shape[1], dtype=skew.dtype)
        rotation = (eye + skew) @ torch.linalg.inv(eye - skew)
        blocks = w0.reshape(self.blocks, -1, w0[0].numel())
        return ((rotation - eye).transpose(1, 2) @ blocks).reshape(w0.shape)


class Boft(Format):
    """A butterfly of two block-diagonal rotations of W0 (Liu et al. 2023).

    The rows are in LyCORIS' order.
    """

    block = 8
    alpha = 0.0  # the bound on |Q|; 0 for none. ComfyUI can't apply a BOFT file without the entry.

    def make(self, shape):
        return {
            "oft_blocks": self.randn(
                2, shape[0] // self.block, self.block, self.block, scale=self.size
            )
        }

    def change(self, parts, w0):
        skew = parts["oft_blocks"] - parts["oft_blocks"].transpose(-1, -2)
        eye = torch.eye(self.block, dtype=skew.dtype)
        rotations = (eye + skew) @ torch.linalg.inv(eye - skew)
        rows = torch.arange(w0.shape[0])
        out = w0.flatten(1)
        for level, rotation in enumerate(rotations):
            span = 2**level * self.block // 2
            # rows `span` apart meet in one block
            order = rows.reshape(-1, 2, span).transpose(1, 2).reshape(-1)
            mixed = torch.empty_like(out)
            mixed[order] = torch.block_diag(*rotation) @ out[order]
            out = mixed
        return out.reshape(w0.shape) - w0


class Glora(Format):
    """W0 a1 a2 + b1 b2, for linear layers (Chavan et al. 2023)."""

    def make(self, shape):
        fan_in = shape[1:].numel()
        return {
            "a1.weight": self.randn(fan_in, self.rank, scale=fan_in**-0.5),
            "a2.weight": self.randn(self.rank, fan_in, scale=self.size),
            "b1.weight": self.randn(shape[0], self.rank, scale=self.size),
            "b2.weight": self.randn(self.rank, fan_in, scale=fan_in**-0.5),
        }

    def change(self, parts, w0):
        return (
            w0 @ parts["a1.weight"] @ parts["a2.weight"] + parts["b1.weight"] @ parts["b2.weight"]
        )


class Full(Format):
    """A whole difference."""

    def make(self, shape):
        return {"diff": self.randn(*shape, scale=self.size * shape[1:].numel() ** -0.5)}

    def change(self, parts, w0):
        return parts["diff"]


class Whole(Format):
    """A whole new weight: its change is the new weight minus W0."""

    def make(self, shape):
        return {"set_weight": self.randn(*shape, scale=shape[1:].numel() ** -0.5)}

    def change(self, parts, w0):
        return parts["set_weight"] - w0


LINEAR = (Lora, Dora, Loha, Lokr, Oft, Boft, Glora, Full, Whole)
CONVOLUTION = (Lora, Dora, Loha, Lokr, Oft, Boft, Full, Whole)
