"""Which blocks are tapped (rows L16, L23; ambiguity 2.22), and where a model keeps them."""

from torch import nn

PLACEMENTS = ("middle-2", "middle-third", "top-bottom")


def select_blocks(num_layers: int, blocks: str | list[int]) -> list[int]:
    """Indices of the tapped blocks, counted from 0.

    Args:
        num_layers: number of blocks n of the model.
        blocks: "middle-2" {n/2-1, n/2}, "middle-third" range(n//3, 2n//3), "top-bottom" {0, n-1}, or a
            list of indices.

    Raises:
        ValueError: an unknown name, an index outside the model, the same block twice, or no block.
    """
    n = num_layers
    if isinstance(blocks, str):
        if blocks not in PLACEMENTS:
            raise ValueError(f"blocks must be one of {', '.join(PLACEMENTS)} or a list of indices, not {blocks!r}")
        if n < 2:
            raise ValueError(f"blocks: {blocks} needs a model of at least 2 blocks, this one has {n}")
        named = {
            "middle-2": [n // 2 - 1, n // 2],
            "middle-third": list(range(n // 3, 2 * n // 3)),
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


def find_blocks(model: nn.Module) -> nn.ModuleList | nn.Sequential:
    """The model's list of blocks: the list of modules of one class that holds the most parameters.

    Raises:
        ValueError: there is no such list.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    stacks = [stack for stack in lists if len(stack) > 1 and len({type(block) for block in stack}) == 1]
    if not stacks:
        raise ValueError(f"found no list of blocks in {type(model).__name__}")
    return max(stacks, key=lambda stack: sum(p.numel() for p in stack.parameters()))
