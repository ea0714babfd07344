"""Which blocks are tapped (rows L16, L23, M15, M16; ambiguity 2.22), and where a model keeps them."""

from collections.abc import Sequence

from torch import nn

PLACEMENTS = ("middle-2", "middle-third", "middle-4", "top-bottom")


def select_blocks(num_layers: int, blocks: str | Sequence[int]) -> list[int]:
    """Indices of the tapped blocks, counted from 0.

    Args:
        num_layers: number of blocks n of the model.
        blocks: "middle-2" {n/2-1, n/2}, "middle-third" range(n//3, 2n//3), "top-bottom" {0, n-1},
            "middle-4" {n/2-2 ... n/2+1} (MEmeL's), or a list of indices.

    Raises:
        ValueError: an unknown name, an index outside the model, the same block twice, or no block.
    """
    n = num_layers
    if isinstance(blocks, str):
        if blocks not in PLACEMENTS:
            raise ValueError(f"blocks must be one of {', '.join(PLACEMENTS)} or a list of indices, not {blocks!r}")
        least = 4 if blocks == "middle-4" else 2
        if n < least:
            raise ValueError(f"blocks: {blocks} needs a model of at least {least} blocks, this one has {n}")
        named = {
            "middle-2": [n // 2 - 1, n // 2],
            "middle-third": list(range(n // 3, 2 * n // 3)),
            "middle-4": list(range(n // 2 - 2, n // 2 + 2)),
            "top-bottom": [0, n - 1],
        }
        return named[blocks]
    if not blocks:
        raise ValueError("blocks must name at least one block")
    if len(set(blocks)) != len(blocks):
        raise ValueError(f"blocks names a block twice: {blocks}")
    outside = [index for index in blocks if not 0 <= index < n]
    if outside:
        raise ValueError(f"blocks: {outside} lie outside the model, whose blocks are 0 to {n - 1}")
    return sorted(blocks)


def tapped_modules(
    model: nn.Module, blocks: str | Sequence[int] | Sequence[str], stack: str | None = None
) -> dict[int | str, nn.Module]:
    """The modules whose outputs are tapped, by index in the list of blocks or by path.

    Args:
        model: any module.
        blocks: as in `select_blocks`, or paths of modules, e.g. ["cell.candidate"].
        stack: path of the list that holds the blocks; None: the largest (`find_blocks`).

    Raises:
        ValueError: there is nothing at a path, or no list of blocks, or see `select_blocks`.
    """
    if not isinstance(blocks, str) and all(isinstance(block, str) for block in blocks) and blocks:
        return {path: _at(model, str(path), "blocks") for path in blocks}
    found = _at(model, stack, "stack") if stack is not None else find_blocks(model)
    if not isinstance(found, nn.ModuleList | nn.Sequential):
        raise ValueError(f"stack: {stack} is a {type(found).__name__}, not a ModuleList or Sequential of blocks")
    return {index: found[index] for index in select_blocks(len(found), blocks)}  # type: ignore[arg-type]


def find_blocks(model: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The model's list of blocks: the list of modules of one class that holds the most parameters.

    Raises:
        ValueError: there is no such list.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    stacks = [stack for stack in lists if len(stack) > 1 and len({type(block) for block in stack}) == 1]
    if not stacks:
        raise ValueError(
            f"found no list of blocks in {type(model).__name__}: name it with stack=..., or name the modules "
            f"themselves with blocks=[path, ...]"
        )
    return max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()))


def _at(model: nn.Module, path: str, key: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{key}: {type(model).__name__} has no module {path!r}") from None
