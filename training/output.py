"""What a training run leaves on the disk: the module, compared before it is called saved, and what it resumes from."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..modular.files import load_safety, load_task, save_module


def resume_path(output: Path, resume: bool) -> Path:
    """The checkpoint beside an output. Without `resume` an old one is removed, and an output that exists is refused."""
    path = output.with_suffix(".resume.safetensors")
    if not resume:
        if output.exists():
            raise FileExistsError(f"{output} exists already; choose another name, or delete it.")
        path.unlink(missing_ok=True)
    return path


def write_module(output: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], role: str) -> str:
    """Write a module, open it again and compare; its digest. Raises OSError when the disk does not hold what was written."""
    digest = save_module(output, tensors, metadata, role, overwrite=True)
    read = (load_safety if role == "safety" else load_task)(output, output.name)
    written = load_file(output)
    if read.sha256 != digest or not all(torch.equal(written[name], value.cpu()) for name, value in tensors.items()):
        raise OSError(f"{output} does not hold what was written; the disk may be failing. The checkpoint beside it is kept.")
    return digest
